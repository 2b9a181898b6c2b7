"""When a rule may end a thought, what it makes of it, and that nobody loses anything where it cannot."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router.domain import (
    Certificate,
    Checkpoint,
    Completion,
    ContentDelta,
    Decision,
    DecisionSource,
    Escalation,
    FinishReason,
    MaxLoss,
    Message,
    MinQuality,
    Prompt,
    ReasoningDelta,
    ResponseFormat,
    Role,
    RouteRequest,
    RoutingOptions,
    Rule,
    Sampling,
    Score,
    ServedEvent,
    Tool,
    Tools,
)
from router.errors import BackendUnavailable
from router.events import Audited, Degraded, Generated, StreamAborted
from router.outcomes.agreement import Agreement
from router.outcomes.audit import Auditor, TokenBucket
from router.outcomes.e_process import Ledger
from router.outcomes.sqlite import SqliteOutcomes
from router.routing.explain import Explainer
from router.routing.policy import Policy
from router.routing.router import BudgetRouter
from router.routing.stopping import applicable
from router.stopping.evidence import Evidence, Probe
from router.stopping.rules import AgreeRule, LearnedRule, StoppingCertificate, StoppingRule, ThresholdRule, stops
from tests.support.climbs import SURE, ClimbingBackend, asked, probe_of
from tests.support.fakes import (
    CERTIFICATE,
    LADDER,
    LATENCY,
    RISING,
    UNAVAILABLE,
    VERSION,
    FakeClassifier,
    ListLog,
    RecordingObserver,
    called,
    policy_of,
    request_of,
    result,
    router_of,
    until,
)

TOP = len(LADDER) - 1
AGREE = StoppingCertificate(0.02, 0.1, AgreeRule(1, 1), 400, thinking_tokens=50.0, probe_tokens=12.0)
TEXT = replace(CERTIFICATE, alpha=0.02)
"""Certified for no more loss than the rule, which therefore goes first."""

GREEDY = Sampling(temperature=0.0)
STEADY = {32: SURE, 64: SURE}
"""The answer stands from 32 tokens on, so that the rule stops at 64."""


def policy_with(*certificates: StoppingCertificate, **fields: Any) -> Policy:
    return replace(policy_of(certificates=[TEXT]), stopping=certificates or (AGREE,), **fields)


def rule_of(rule: StoppingRule) -> StoppingCertificate:
    return replace(AGREE, rule=rule)


def router_with(backend: ClimbingBackend, *certificates: StoppingCertificate, **parts: Any) -> BudgetRouter:
    return router_of(backend=backend, policy=policy_with(*certificates), **parts)


async def events_of(
    router: BudgetRouter,
    request: RouteRequest | None = None,
    tools: Tools | None = None,
    sampling: Sampling | None = None,
) -> list[Decision | ServedEvent]:
    asked = request or request_of(), sampling or GREEDY, tools or Tools()
    return [event async for event in router.generate(*asked)]


def answer(events: list[Decision | ServedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ContentDelta))


def thought(events: list[Decision | ServedEvent]) -> int:
    return sum(isinstance(event, ReasoningDelta) for event in events)


def end_of(events: list[Decision | ServedEvent]) -> Completion:
    assert isinstance(events[-1], Completion)
    return events[-1]


async def test_the_thought_ends_where_its_answer_stands() -> None:
    backend = ClimbingBackend(STEADY)
    events = await events_of(router_with(backend))
    [climb], end = backend.begun, end_of(events)
    assert climb.steps == [("think", 16), ("probe", 32), ("think", 32), ("probe", 32), ("think", 64), ("probe", 32)]
    assert (answer(events), thought(events)) == ("the answer is 4", 64)
    assert (end.finish, end.budget.name, end.thinking_tokens) == (FinishReason.CONVERGED, "64", 64)
    assert (end.probe_tokens, end.answer_tokens, end.budget_violated) == (8, 4, False), "the last probe is the answer"
    seen = [event for event in events if isinstance(event, Checkpoint)]
    assert [(one.rung, one.stops) for one in seen] == [("16", False), ("32", False), ("64", True)]
    assert end.checkpoints == tuple(seen)


async def test_the_decision_names_the_rule_where_it_looks_and_what_it_expects() -> None:
    decision, *_ = await events_of(router_with(ClimbingBackend(STEADY)))
    assert isinstance(decision, Decision)
    assert (decision.rule, decision.rung, decision.choice.checkpoints) == (
        Rule.STOPPING,
        LADDER.rungs[TOP],
        (1, 2, 3, 4),
    )
    assert decision.expected_thinking_tokens == 50.0
    assert decision.choice.certificate == Certificate(0.02, 0.1, 0.0, 400)
    assert decision.choice.reason == (
        "looked at from rung 16 on, the thought ends once its answer is that of the rung before, "
        "at rung 256 at the latest"
    )


async def test_an_answer_that_is_not_whole_is_generated_behind_the_cut() -> None:
    long = probe_of("the answer is 4, because", whole=False)
    backend = ClimbingBackend({32: long, 64: long})
    events = await events_of(router_with(backend))
    end = end_of(events)
    assert (answer(events), end.finish, end.budget.name) == ("answered at 64", FinishReason.CONVERGED, "64")
    assert (end.probe_tokens, end.answer_tokens) == (12, 2)


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.6), Sampling(), Sampling(temperature=0.0, logprobs=True)], ids=str
)
async def test_an_answer_that_the_probe_cannot_be_is_generated_behind_the_cut(sampling: Sampling) -> None:
    """As it is drawn, or may be by the engine's default, or where its tokens' log-probabilities are wanted."""
    events = await events_of(router_with(ClimbingBackend(STEADY)), sampling=sampling)
    assert (answer(events), end_of(events).finish) == ("answered at 64", FinishReason.CONVERGED)


async def test_a_thought_that_ends_by_itself_is_answered_at_once() -> None:
    backend = ClimbingBackend(length=20)
    events = await events_of(router_with(backend))
    end = end_of(events)
    assert (answer(events), end.finish, end.thinking_tokens) == ("answered at 20", FinishReason.NATURAL, 20)
    assert asked(backend.begun[0]) == ["think", "probe", "think", "answer"]
    assert end.probe_tokens == 4


async def test_at_the_top_rung_it_ends_without_a_probe() -> None:
    backend = ClimbingBackend()
    events = await events_of(router_with(backend))
    end = end_of(events)
    assert (answer(events), end.finish, end.budget.name) == ("answered at 256", FinishReason.FORCED, "256")
    assert end.probe_tokens == 4 * len(end.checkpoints) == 16


@pytest.mark.parametrize(
    ("rule", "rung"),
    [
        (AgreeRule(0, 1), "64"),
        (AgreeRule(0, 2), "128"),
        (AgreeRule(3, 1), "128"),
        (ThresholdRule(0, -0.2), "32"),
        (ThresholdRule(4, -0.2), "128"),
    ],
)
async def test_every_rule_stops_where_it_says(rule: StoppingRule, rung: str) -> None:
    sure = probe_of("4", -0.1)
    backend = ClimbingBackend({32: sure, 64: sure, 128: sure})
    assert end_of(await events_of(router_with(backend, rule_of(rule)))).budget.name == rung


async def test_what_is_served_is_what_a_replay_of_its_evidence_says() -> None:
    backend = ClimbingBackend({n: probe_of("4" if n in (0, 64, 128) else str(n)) for n in (0, 16, 32, 64, 128)})
    rule = AgreeRule(0, 1)
    end = end_of(await events_of(router_with(backend, rule_of(rule))))
    replayed = [stops(rule, i, one.evidence) for i, one in enumerate(end.checkpoints)]
    assert replayed == [one.stops for one in end.checkpoints] == [False, False, False, False, True]


class Graph:
    """A learned rule's graph: going on is worth it while fewer than `cuts` have been seen."""

    def __init__(self, cuts: int) -> None:
        self.cuts = cuts
        self.asked: list[tuple[int, Evidence]] = []

    def ahead(self, position: int, evidence: Evidence) -> tuple[list[float], list[float]]:
        self.asked.append((position, evidence))
        here = 1.0 if len(self.asked) >= self.cuts else 0.0
        return [here] * (position + 1) + [0.5] * (TOP - position), [0.0] * (TOP + 1)


async def test_a_learned_rule_asks_the_bundles_second_graph() -> None:
    backend, graph = ClimbingBackend(), Graph(3)
    router = router_with(backend, rule_of(LearnedRule(1, 1e-4)))
    router.swap(replace(router.served_models[0], lookahead=graph))
    assert end_of(await events_of(router)).budget.name == "64"
    assert [(at, seen.tokens, seen.quality) for at, seen in graph.asked] == [(1, 16, 0.3), (2, 32, 0.5), (3, 64, 0.7)]


def asking(**options: Any) -> RouteRequest:
    return request_of(options=replace(RoutingOptions(MaxLoss(0.05)), **options))


@pytest.mark.parametrize(
    "request_",
    [
        asking(target=MaxLoss(0.01)),
        asking(target=MinQuality(0.5)),
        asking(target=MaxLoss(0.05, per_prompt=True)),
        asking(max_thinking_tokens=128),
        asking(min_thinking_tokens=32),
        asking(max_latency=LATENCY.seconds(2 * 100.0)),
        asking(rung="64"),
        replace(request_of(), prompt=Prompt((Message(Role.USER, "what is it?", images=("data:,",)),))),
    ],
    ids=["stricter", "absolute", "per prompt", "ceiling", "floor", "deadline", "named", "images"],
)
async def test_what_the_certificate_is_not_about_gets_the_text_rule(request_: RouteRequest) -> None:
    backend = ClimbingBackend(STEADY)
    decision, *_, end = await events_of(router_with(backend), request_)
    assert isinstance(decision, Decision) and isinstance(end, Completion)
    assert (decision.rule is Rule.STOPPING, backend.begun, end.checkpoints) == (False, [], ())


async def test_a_deadline_that_leaves_time_for_the_probes_keeps_the_rule() -> None:
    seconds = LATENCY.seconds(RISING.p99[-1] or 0) + 4 * (LATENCY.first_token + 32 * LATENCY.per_token)
    for more, rule in ((0.01, Rule.STOPPING), (-0.01, Rule.TEXT)):
        decision, *_ = await events_of(router_with(ClimbingBackend(STEADY)), asking(max_latency=seconds + more))
        assert isinstance(decision, Decision) and decision.rule is rule


async def test_where_tools_are_offered_nothing_is_probed() -> None:
    backend = ClimbingBackend(STEADY)
    decision, *_ = await events_of(router_with(backend), tools=Tools((Tool("add", "", {}),)))
    assert isinstance(decision, Decision) and decision.rule is Rule.TEXT
    assert not backend.begun and decision.choice.checkpoints == (1, 2, 3, 4), "the caller could look"


async def test_an_answer_in_json_is_not_probed() -> None:
    """The rule is certified on free answers."""
    backend = ClimbingBackend(STEADY)
    sampling = Sampling(temperature=0.0, response_format=ResponseFormat())
    decision, *_ = await events_of(router_with(backend), sampling=sampling)
    assert isinstance(decision, Decision) and decision.rule is Rule.TEXT
    assert not backend.begun


async def test_an_engine_that_cannot_do_it_gets_the_text_rule() -> None:
    backend = ClimbingBackend(STEADY, climbs=False)
    decision, *_ = await events_of(router_with(backend))
    assert isinstance(decision, Decision)
    assert (decision.rule, decision.rung.name, decision.choice.certificate) == (Rule.TEXT, "128", TEXT)


async def test_a_decision_alone_is_the_text_rules_and_says_where_a_caller_could_look() -> None:
    decision = await router_with(ClimbingBackend(STEADY)).decide(request_of())
    assert (decision.rule, decision.rung.name, decision.choice.checkpoints) == (Rule.TEXT, "128", (1, 2, 3, 4))
    [batched] = await router_with(ClimbingBackend(STEADY)).decide_batch([request_of()])
    assert batched.choice == decision.choice


@pytest.mark.parametrize("score", [replace(RISING, far=True), None])
async def test_what_is_unlike_or_unscored_thinks_to_the_top(score: Score | None) -> None:
    backend = ClimbingBackend(STEADY)
    classifier = FakeClassifier(failing=True) if score is None else FakeClassifier(score)
    decision, *_ = await events_of(router_with(backend, classifier=classifier))
    assert isinstance(decision, Decision)
    assert (decision.rung, decision.choice.stopping, backend.begun) == (LADDER.rungs[TOP], None, [])


def test_a_suspended_policy_stops_nothing() -> None:
    suspended = policy_with(suspended="an audit has found more loss than was certified")
    assert applicable(suspended, RISING, RoutingOptions(MaxLoss(0.05))) is None
    assert applicable(policy_with(), RISING, RoutingOptions(MaxLoss(0.05))) == AGREE


def test_a_choice_before_the_thought_goes_first_where_it_is_certified_for_more_loss() -> None:
    loose = Certificate(0.05, 0.1, 0.0, 400)
    policy = replace(policy_with(), certificates=(*policy_of().certificates, loose))
    assert applicable(policy, RISING, RoutingOptions(MaxLoss(0.05))) is None
    assert applicable(policy, RISING, RoutingOptions(MaxLoss(0.03))) == AGREE


def test_the_least_strict_certificate_that_covers_the_target_is_used() -> None:
    strict, loose = replace(AGREE, alpha=0.01), replace(AGREE, alpha=0.1)
    policy = policy_with(strict, AGREE, loose)
    found = [applicable(policy, RISING, RoutingOptions(MaxLoss(loss))) for loss in (0.005, 0.01, 0.05, 0.1)]
    assert found == [None, strict, AGREE, loose]


def test_named_efforts_are_no_places_to_look() -> None:
    named = replace(LADDER, rungs=(*LADDER.rungs[:2], replace(LADDER.rungs[2], tokens=None), *LADDER.rungs[3:]))
    assert applicable(policy_with(ladder=named), RISING, RoutingOptions(MaxLoss(0.05))) is None


async def test_a_probe_that_fails_is_no_evidence_and_the_thought_goes_on() -> None:
    backend, observer = ClimbingBackend({16: SURE, 64: SURE, 128: SURE}), RecordingObserver()
    backend.fails[32] = UNAVAILABLE
    end = end_of(await events_of(router_with(backend, observer=observer)))
    assert end.budget.name == "128", "nothing is known to have stood over a gap"
    assert [one.probe_tokens for one in end.checkpoints] == [4, 0, 4, 4]
    assert observer.of(Degraded) == [Degraded("backend", str(UNAVAILABLE))]


async def test_before_anything_is_thought_a_failure_is_the_generations() -> None:
    backend = ClimbingBackend()
    backend.fails[0] = UNAVAILABLE
    with pytest.raises(BackendUnavailable):
        await events_of(router_with(backend, rule_of(AgreeRule(0, 1))))


def ahead(router: BudgetRouter) -> BudgetRouter:
    """The router, which thinks on while it looks."""
    router.swap(replace(router.served_models[0], ahead=True))
    return router


@pytest.mark.parametrize("probes", [STEADY, {}, {32: probe_of("4", whole=False), 64: probe_of("4", whole=False)}])
async def test_thinking_on_while_it_looks_changes_nothing_but_the_time(probes: dict[int, Probe]) -> None:
    after, meanwhile = [
        await events_of(router)
        for router in (router_with(ClimbingBackend(probes)), ahead(router_with(ClimbingBackend(probes))))
    ]
    assert meanwhile[1:-1] == after[1:-1], "what is thought in vain is not shown"
    end, known = end_of(meanwhile), end_of(after)
    assert replace(end, probe_tokens=known.probe_tokens) == known
    assert end.probe_tokens >= known.probe_tokens


async def test_what_is_thought_in_vain_is_stopped_and_charged() -> None:
    backend = ClimbingBackend(STEADY)
    end = end_of(await events_of(ahead(router_with(backend))))
    thought = backend.begun[0].tokens
    assert (end.thinking_tokens, end.probe_tokens) == (64, 8 + thought - 64)
    assert backend.open == 0 and thought <= 128


async def test_what_is_thought_ahead_is_stopped_before_the_caller_takes_the_last_checkpoint() -> None:
    backend, thought = ClimbingBackend(STEADY), 0
    async with aclosing(ahead(router_with(backend)).generate(request_of(), GREEDY)) as events:
        async for event in events:
            thought += isinstance(event, ReasoningDelta)
            if thought == 40:  # the step to 64 runs; the one behind it never ends
                backend.hangs = "think"
            if isinstance(event, Checkpoint) and event.stops:
                assert backend.begun[0].steps[-1] == ("think", 128) and backend.open == 0


async def test_a_thought_ahead_that_fails_is_no_failure_where_the_rule_stops() -> None:
    for probes, fails in (({16: SURE, 32: SURE}, False), ({}, True)):
        backend = ClimbingBackend(probes)
        backend.breaks = 64
        if fails:
            with pytest.raises(BackendUnavailable):
                await events_of(ahead(router_with(backend)))
        else:
            assert end_of(await events_of(ahead(router_with(backend)))).budget.name == "32"
        assert backend.open == 0


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("step", ["think", "probe", "answer"])
async def test_a_caller_who_leaves_at_any_step_leaves_nothing_behind(step: str, forward: bool) -> None:
    backend, observer = ClimbingBackend(hangs=step), RecordingObserver()
    router = router_with(backend, observer=observer)
    if forward:
        router = ahead(router)

    async def read() -> None:
        async with aclosing(router.generate(request_of(), GREEDY)) as events:
            async for _ in events:
                pass

    task = asyncio.create_task(read())
    await until(lambda: backend.open and step in [name for climb in backend.begun for name in asked(climb)])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert backend.open == 0
    assert [record.cause for record in observer.of(StreamAborted)] == ["caller"]


async def test_what_is_charged_is_what_was_thought_probed_and_answered() -> None:
    observer = RecordingObserver()
    router = router_with(ClimbingBackend(STEADY), observer=observer)
    charged: list[float] = []
    entered = router._admission.admitted

    def admitted(request: RouteRequest, tokens: float, patience: float | None = None) -> Any:
        charged.append(tokens)
        return entered(request, tokens, patience)

    router._admission.admitted = admitted  # type: ignore[method-assign]
    await events_of(router)
    assert charged == [50.0 + 12.0 + LATENCY.answer_tokens]
    [record] = observer.of(Generated)
    assert record.completion.probe_tokens == 8


async def test_a_conversation_keeps_its_rule() -> None:
    backend, classifier = ClimbingBackend(STEADY), FakeClassifier()
    router = router_with(backend, classifier=classifier)
    talk = asking(conversation_id="talk")
    for turn, source in enumerate((DecisionSource.CLASSIFIER, DecisionSource.PINNED), 1):
        decision, *_, end = await events_of(router, talk)
        assert isinstance(decision, Decision) and isinstance(end, Completion)
        assert (decision.source, decision.rule, end.budget.name) == (source, Rule.STOPPING, "64")
        assert (len(backend.begun), len(classifier.asked)) == (turn, 1)
    decision, *_ = await events_of(router, talk, Tools((Tool("add", "", {}),)))
    assert isinstance(decision, Decision) and (decision.rung.name, decision.choice.stopping) == ("256", None)


async def test_a_conversation_that_keeps_the_top_rung_for_another_reason_is_not_stopped() -> None:
    far, near = replace(RISING, far=True), RISING
    scores = iter((far, near))
    backend = ClimbingBackend(STEADY)
    router = router_with(backend, classifier=FakeClassifier(lambda _: next(scores)))
    for text in ("far away", "and near"):
        await events_of(router, replace(asking(conversation_id="talk"), prompt=Prompt.of(text)))
    assert not backend.begun


async def test_a_far_turn_of_the_user_ends_the_rule_of_its_conversation() -> None:
    scores = iter((RISING, replace(RISING, far=True)))
    backend = ClimbingBackend(STEADY)
    router = router_with(backend, classifier=FakeClassifier(lambda _: next(scores)))
    escalations, reasons = list[Escalation | None](), list[str]()
    for text in ("near", "far away", "and near again"):
        decision, *_ = await events_of(router, replace(asking(conversation_id="talk"), prompt=Prompt.of(text)))
        assert isinstance(decision, Decision) and decision.rung.name == "256"
        escalations.append(decision.escalation)
        reasons.append(decision.choice.reason)
    assert (len(backend.begun), escalations) == (1, [None, Escalation.UNLIKE, None])
    assert "no rule ends the conversation's thoughts any more" in reasons[1]


async def test_after_a_failed_tool_no_rule_ends_the_thought() -> None:
    backend = ClimbingBackend(STEADY)
    router = router_with(backend)
    talk = asking(conversation_id="talk", escalate=True)
    await events_of(router, talk)
    loop = (*talk.prompt.messages, called("1"), result("1", failed=True))
    decision, *_ = await events_of(router, replace(talk, prompt=Prompt(loop)))
    assert isinstance(decision, Decision)
    assert (decision.rung.name, decision.rule, decision.escalation) == ("256", Rule.FIXED, Escalation.TOOL_FAILED)
    assert len(backend.begun) == 1


async def test_a_share_of_the_thoughts_goes_on_to_learn_from_it() -> None:
    backend, log = ClimbingBackend(STEADY), ListLog()
    router = router_with(backend, log=log, explored=0.25)
    for _ in range(60):
        await events_of(router)
    explored = [decision for _, decision in log.decided if decision.source is DecisionSource.EXPLORE]
    stopped = [decision for _, decision in log.decided if decision.rule is Rule.STOPPING]
    assert len(explored) + len(stopped) == 60 and 2 <= len(explored) <= 40
    assert {decision.propensities for _, decision in log.decided} == {(*[0.0] * TOP, 0.25)}, "of a rung without a rule"
    assert {decision.propensity for decision in explored} == {0.25}
    assert {decision.propensity for decision in stopped} == {0.75}
    assert len(backend.begun) == len(stopped)


async def test_what_a_rule_has_seen_is_kept_and_explained(tmp_path: Path) -> None:
    log = SqliteOutcomes(tmp_path / "log", RecordingObserver())
    router = router_with(ClimbingBackend(STEADY), log=log)
    decision, *_, end = await events_of(router)
    assert isinstance(decision, Decision) and isinstance(end, Completion)
    found = await log.find(decision.id)
    assert found is not None and found.decision == decision
    unnamed = [replace(one, answer="", evidence=replace(one.evidence, key=None)) for one in end.checkpoints]
    assert list(found.checkpoints) == unnamed, "an answer is the model's text, which the log does not keep"
    _, told = await Explainer(router, log).decided(decision.id, "default")
    assert told[0] == f"A rule that stops within the thought was chosen: {decision.choice.reason}."
    assert any("at most 0.02. There the rule spent 50 tokens on the thought and 12 tokens on" in one for one in told)
    assert told[-3:] == [
        "At rung 16, after 16 tokens, its answer is new, with a mean log-probability of -0.50: it went on.",
        "At rung 32, after 32 tokens, its answer is new, with a mean log-probability of -0.50: it went on.",
        "At rung 64, after 64 tokens, its answer is that of the 1 rung before, with a mean log-probability of -0.50: "
        "it ended there.",
    ]
    await log.close()


def audited(home: Path, backend: ClimbingBackend) -> tuple[BudgetRouter, Auditor, RecordingObserver, Ledger]:
    observer, ledger = RecordingObserver(), Ledger(home / "audit.json")
    auditor = Auditor(1.0, TokenBucket(1e9), Agreement(), ledger, observer)
    router = router_with(backend, observer=observer, audit=auditor)
    auditor.on_alarm(router.suspend)
    return router, auditor, observer, ledger


async def test_an_audit_goes_on_with_the_same_thought_to_the_top(tmp_path: Path) -> None:
    backend = ClimbingBackend(STEADY)
    router, _, observer, _ = audited(tmp_path, backend)
    await events_of(router)
    await until(lambda: observer.of(Audited))
    [record], [climb] = observer.of(Audited), backend.begun
    assert climb.steps[-2:] == [("think", None), ("answer", None)] and climb.tokens == 256
    assert (record.loss, record.thinking_tokens) == (1.0, (64 + 8, 256)), "another answer, of the same thought"
    assert not backend.asked, "nothing is thought twice"


@pytest.mark.parametrize("backend", [ClimbingBackend(length=20), ClimbingBackend()], ids=["by itself", "at the top"])
async def test_a_thought_that_no_rule_has_ended_loses_nothing(tmp_path: Path, backend: ClimbingBackend) -> None:
    router, _, observer, _ = audited(tmp_path, backend)
    await events_of(router)
    assert [record.loss for record in observer.of(Audited)] == [0.0]
    assert asked(backend.begun[-1])[-1] == "answer"


async def test_a_rule_that_does_not_hold_is_given_up_for_everyone(tmp_path: Path) -> None:
    backend = ClimbingBackend(STEADY)
    router, auditor, _, ledger = audited(tmp_path, backend)
    while not ledger.alarmed(VERSION):
        await events_of(router)
        await until(lambda: not auditor._tasks)
    begun = len(backend.begun)
    decision, *_ = await events_of(router)
    assert isinstance(decision, Decision)
    assert (decision.rung.name, decision.choice.stopping, len(backend.begun)) == ("256", None, begun)
