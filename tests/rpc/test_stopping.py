"""Thoughts that a rule may end, over the wire: with the embedded reasoner, and with a simulated engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from router._gen import budget_router_pb2 as pb
from router.answer_keys import answer_key
from router.backends import canary
from router.backends.connect import Connection, connect
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.backends.replica import Replica
from router.backends.replicas import Replicas
from router.bundle.manifest import Bundle
from router.domain import GenerationRequest, Prompt, ReasoningBudget
from router.routing.router import BudgetRouter
from router.scoring.onnx import OnnxClassifier
from router.stopping.evidence import PROBE_TOKENS, Evidence, following
from router.stopping.rules import AgreeRule, StoppingCertificate, StoppingRule, ThresholdRule, stops
from tests.rpc.conftest import TOKEN, Service, bearer, decide, embedded, generate, serving
from tests.support.fakes import CERTIFICATE, RecordingObserver, policy_of, router_of, until
from tests.support.simulators import MODEL, Simulator, simulated

THOUGHTFUL = (
    "How many 1 bits are there in the binary representation of the number 80861?",
    "How many 1 bits are there in the binary representation of the number 27711?",
    "Sort these numbers in ascending order: 92.0, 22.0, 7.0, 26.0, 56.0, 13.0, 18.0",
)
"""Prompts about which the embedded reasoner thinks for a while, not all of them up to the top rung."""

RULE = AgreeRule(1, 1)
RULES: list[StoppingRule] = [AgreeRule(0, 1), AgreeRule(0, 2), ThresholdRule(0, -0.05)]


def certified(rule: StoppingRule) -> StoppingCertificate:
    return StoppingCertificate(0.02, 0.1, rule, 400, 50.0, 12.0)


def ruled(router: BudgetRouter, rule: StoppingRule) -> BudgetRouter:
    """The router, with a certified rule in its first model's bundle."""
    [served] = router.served_models
    bundle = replace(served.bundle, manifest=replace(served.bundle.manifest, answers="verbatim"))
    policy = replace(served.policy, certificates=(), stopping=(certified(rule),))
    router.swap(replace(served, bundle=bundle, policy=policy))
    return router


GREEDY = pb.SamplingOptions(temperature=0)


async def stream(service: Service, request: pb.GenerateRequest) -> list[pb.GenerateResponse]:
    return [event async for event in service.routing.Generate(request)]


@asynccontextmanager
async def engine(kind: str, rule: StoppingRule = RULE) -> AsyncIterator[tuple[Simulator, BudgetRouter]]:
    """A router on a simulated engine."""
    async with simulated(kind) as simulator, AsyncExitStack() as stack:
        backend = connect(Connection(kind, simulator.url, MODEL), canary.holds_budgets, stack)
        replicas = Replicas([Replica("r", backend)], RecordingObserver())
        await replicas.prove()
        simulator.bodies.clear()
        policy = policy_of(certificates=[replace(CERTIFICATE, alpha=0.02)])
        yield simulator, router_of(backend=replicas, policy=replace(policy, stopping=(certified(rule),)))


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama_cpp"])
async def test_an_engine_is_stopped_where_its_answer_stands(bundle: Bundle, kind: str) -> None:
    async with engine(kind) as (simulator, router), serving(router, bundle) as service:
        events = await stream(service, generate(show_checkpoints=True, sampling=GREEDY))
    assert simulator.running == 0
    decision, end = events[0].decision, events[-1].completion
    assert (decision.rule, decision.rung, list(decision.checkpoints)) == (
        pb.RULE_STOPPING, "256", ["16", "32", "64", "128"],
    )  # fmt: skip
    assert (decision.expected_thinking_tokens, decision.certified, decision.certificate.alpha) == (50.0, True, 0.02)
    assert "".join(e.reasoning for e in events) == "".join(f"s{i} " for i in range(32))
    assert "".join(e.content for e in events) == "The answer is 4."
    assert (end.finish_reason, end.rung, end.budget_tokens) == (pb.FINISH_REASON_CONVERGED, "32", 32)
    assert (end.thinking_tokens, end.probe_tokens, end.answer_tokens) == (32, 5, 5)
    seen = [event.checkpoint for event in events if event.WhichOneof("event") == "checkpoint"]
    assert [(one.rung, one.thinking_tokens, one.answer, one.probe_tokens, one.stood, one.stops) for one in seen] == [
        ("16", 16, "The answer is 4.", 5, 0, False),
        ("32", 32, "The answer is 4.", 5, 1, True),
    ]
    assert seen[0].mean_logprob == pytest.approx(-0.25)


async def test_nobody_sees_a_checkpoint_who_has_not_asked_for_it(bundle: Bundle) -> None:
    async with engine("vllm") as (_, router), serving(router, bundle) as service:
        kinds = {event.WhichOneof("event") for event in await stream(service, generate())}
        decided = (await service.routing.Decide(decide())).decision
    assert kinds == {"decision", "reasoning", "content", "completion"}
    assert (decided.rule, decided.rung, len(decided.checkpoints)) == (pb.RULE_TEXT, "128", 4)


def begun(simulator: Simulator) -> int:
    """Generations that were asked for."""
    return sum(path == "/v1/completions" for path, _ in simulator.bodies)


@pytest.mark.parametrize("stage", ["thinking", "probing"])
async def test_a_call_that_is_cancelled_leaves_nothing_on_the_engine(bundle: Bundle, stage: str) -> None:
    async with engine("vllm") as (simulator, router), serving(router, bundle) as service:
        simulator.pause = 0.02
        call = service.routing.Generate(generate())

        async def read() -> None:
            async for _ in call:
                pass

        task = asyncio.create_task(read())
        steps = 1 if stage == "thinking" else 2
        await until(
            lambda: simulator.running and sum(path == "/v1/completions" for path, _ in simulator.bodies) == steps
        )
        call.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not simulator.running and simulator.cancelled)


async def test_an_operator_sees_which_rules_may_stop_a_thought(bundle: Bundle) -> None:
    router = ruled(router_of(), RULE)
    [served] = router.served_models
    about = replace(served.bundle.manifest, stopping=(certified(RULE),))
    router.swap(replace(served, bundle=replace(served.bundle, manifest=about)))
    async with serving(router, bundle) as service:
        status = await service.admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
    [rule] = status.stopping
    assert (rule.alpha, rule.prompts, rule.thinking_tokens, rule.probe_tokens) == (0.02, 400, 50.0, 12.0)
    assert rule.rule.startswith(
        "looked at from rung 16 on, the thought ends once its answer is that of the rung before"
    )
    assert not status.steps, "the fake cannot be stopped"


@pytest.mark.parametrize("rule", RULES, ids=["agree 1", "agree 2", "threshold"])
async def test_the_pocket_reasoner_serves_what_a_replay_of_its_probes_says(
    bundle: Bundle, classifier: OnnxClassifier, pocket_model: PocketModel, rule: StoppingRule
) -> None:
    router, backend = embedded(bundle, classifier, pocket_model)
    ladder, finishes = bundle.manifest.ladder, []
    async with serving(ruled(router, rule), bundle) as service:
        for text in THOUGHTFUL:
            events = await stream(service, generate(text, sampling=pb.SamplingOptions(max_answer_tokens=PROBE_TOKENS)))
            end, said = events[-1].completion, "".join(e.content for e in events)
            rung, tokens, answer = await replayed(backend, text, rule, [one.tokens or 0 for one in ladder.rungs])
            assert events[0].decision.rule == pb.RULE_STOPPING
            assert (end.rung, end.thinking_tokens, said) == (ladder.rungs[rung].name, tokens, answer)
            finishes.append(end.finish_reason)
    assert pb.FINISH_REASON_CONVERGED in finishes, "else nothing was stopped"
    backend.close()


async def replayed(backend: PocketBackend, text: str, rule: StoppingRule, caps: list[int]) -> tuple[int, int, str]:
    """Where the rule stops, by the probes of every cut recorded beforehand: rung, thinking tokens, answer."""
    request = GenerationRequest(Prompt.of(text), ReasoningBudget("top", caps[-1]))
    climb = backend.climb(request)
    recorded = []
    for cap in caps:
        _ = [delta async for delta in climb.think(cap)]
        recorded.append((climb.tokens, climb.ended, await climb.probe(PROBE_TOKENS)))
    evidence: Evidence | None = None
    for position, (tokens, ended, probe) in enumerate(recorded):
        if ended or position == len(caps) - 1:
            return len(caps) - 1, recorded[-1][0], recorded[-1][2].text
        if position < rule.first:
            continue
        evidence = following(evidence, answer_key(probe.text, "verbatim"), probe, tokens, ended)
        if stops(rule, position, evidence):
            return position, tokens, probe.text
    raise AssertionError("the top rung ends every thought")
