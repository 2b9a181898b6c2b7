"""`make climbs-vllm`, `make climbs-llamacpp`: does a real engine serve what a replay of its probes says?

Every held-out question is thought once in steps, with a probe at every cut, and each rule is replayed over these. Then
each rule serves the question anew. Greedy decoding makes both the same, as far as the engine's own arithmetic allows:
engines compute batches of other sizes in another order. Probes are timed, and calls are left at every step.
"""

import argparse
import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.progress import track

from benchmarks import engines
from benchmarks.harness import commit, machine
from router.answer_keys import answer_key
from router.backends import canary
from router.backends.completions import Piece
from router.backends.connect import Connection, connect
from router.backends.http import Chunk
from router.backends.verified import VerifiedBackend
from router.domain import (
    BudgetLadder,
    Choice,
    Completion,
    ContentDelta,
    Decision,
    DecisionSource,
    GenerationRequest,
    MaxLoss,
    Prompt,
    ReasoningBudget,
    Sampling,
)
from router.ports import Climb
from router.routing.climber import StoppingClimber
from router.stopping.evidence import PROBE_TOKENS, Evidence, Probe, following
from router.stopping.rules import AgreeRule, StoppingCertificate, StoppingRule, ThresholdRule, stops
from training.collect.questions import held_out_questions

CAPS = (0, 8, 16, 32, 64)
LADDER = BudgetLadder(tuple(ReasoningBudget(str(cap), cap) for cap in CAPS))
RULES: dict[str, StoppingRule] = {
    "agree 1": AgreeRule(0, 1),
    "agree 2": AgreeRule(0, 2),
    "threshold": ThresholdRule(0, -0.25),
}
PROMPTS, LEAVES = 60, 5
ENGINES = {"vllm": engines.vllm, "llama_cpp": engines.llama_cpp_pocket}
"""Both serve the pocket reasoner's weights."""

RESULTS = Path("benchmarks/results")


@dataclass(frozen=True)
class Cut:
    """A cut of a thought, and what was probed there.

    Attributes:
        read: prompt tokens of the probe that were not in the engine's cache; None where it does not say.
    """

    tokens: int
    ended: bool
    probe: Probe
    seconds: float
    read: int | None


def request_of(text: str) -> GenerationRequest:
    """A greedy request for at most the top rung."""
    return GenerationRequest(Prompt.of(text), LADDER.rungs[-1], 0, Sampling(0.0, PROBE_TOKENS))


def climb_of(backend: VerifiedBackend, text: str) -> Climb:
    """A thought that has not begun."""
    climb = backend.climb(request_of(text))
    if climb is None:
        raise SystemExit("this engine cannot have a thought step by step")
    return climb


def watch_prompts(backend: VerifiedBackend) -> list[int]:
    """Prompt tokens that each request from now on makes the engine read; llama.cpp alone says so."""
    read: list[int] = []
    assert backend.phases is not None
    api = backend.phases._completions

    def piece(chunk: Chunk) -> Piece:
        if timings := chunk.get("timings"):
            read.append(timings["prompt_n"])
        return api.piece(chunk)

    backend.phases._completions = replace(api, piece=piece)
    return read


async def recorded(climb: Climb, read: list[int]) -> list[Cut]:
    """A thought with a probe at every cut."""
    cuts = []
    for cap in CAPS:
        async with aclosing(climb.think(cap)) as deltas:
            async for _ in deltas:
                pass
        began = time.perf_counter()
        probe = await climb.probe(PROBE_TOKENS, end=False)
        seconds = time.perf_counter() - began
        cuts.append(Cut(climb.tokens, climb.ended, probe, seconds, read[-1] if read else None))
    return cuts


def replayed(cuts: list[Cut], rule: StoppingRule) -> tuple[str, int, str]:
    """Rung, thinking tokens and answer by a rule over the recorded cuts."""
    evidence: Evidence | None = None
    for position, cut in enumerate(cuts[:-1]):
        if cut.ended:
            break
        evidence = following(evidence, answer_key(cut.probe.text, "text"), cut.probe, cut.tokens, False)
        if stops(rule, position, evidence):
            return LADDER.rungs[position].name, cut.tokens, cut.probe.text
    return LADDER.rungs[-1].name, cuts[-1].tokens, cuts[-1].probe.text


async def served(climb: Climb, rule: StoppingRule) -> tuple[str, int, str]:
    """Rung, thinking tokens and answer as the router serves them."""
    certificate = StoppingCertificate(0.02, 0.1, rule, 100, 0.0, 0.0)
    choice = Choice(len(CAPS) - 1, True, None, "", certificate, certificate.checkpoints(len(CAPS)))
    target, source = MaxLoss(0.02), DecisionSource.CLASSIFIER
    decision = Decision("", "", "", LADDER, choice, target, source, "", None, (0.0,) * len(CAPS))
    text = ""
    climber = StoppingClimber(climb, decision, rule, lambda said: answer_key(said, "text"), lambda _: None, greedy=True)
    async with aclosing(climber.stream()) as events:
        async for event in events:
            if isinstance(event, ContentDelta):
                text += event.text
            if isinstance(event, Completion):
                return event.budget.name, event.thinking_tokens or 0, text
    raise SystemExit("the stream ended without a completion")


async def left(backend: VerifiedBackend, url: str, kind: str, text: str) -> int:
    """Generations still under way after callers have left at every step."""
    for number in range(LEAVES):
        task = asyncio.create_task(served(climb_of(backend, text), RULES["agree 2"]))
        await asyncio.sleep(0.05 * (number + 1))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(1)
    return await asyncio.to_thread(running, url, kind)


def running(url: str, kind: str) -> int:
    """Generations that the engine itself counts."""
    with urllib.request.urlopen(f"{url}/{'slots' if kind == 'llama_cpp' else 'metrics'}", timeout=10) as reply:
        text = reply.read().decode()
    if kind == "llama_cpp":
        return sum(slot["is_processing"] for slot in json.loads(text))
    name = "vllm:num_requests_running"
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in text.splitlines() if line.startswith(name))


@asynccontextmanager
async def proved(connection: Connection) -> AsyncIterator[VerifiedBackend]:
    """A backend that passed the canary."""
    async with AsyncExitStack() as stack:
        backend = connect(connection, canary.holds_budgets, stack)
        await backend.prove()
        yield backend


async def measured(kind: str, url: str, prompts: int) -> dict[str, Any]:
    """Agreement of serving and replay by rule, the time of a probe, and what is left behind."""
    questions = [question.prompt for question in held_out_questions(2, 77)[:prompts]]
    async with proved(Connection(kind, url, "pocket")) as backend:
        read = watch_prompts(backend)
        known = [await recorded(climb_of(backend, text), read) for text in track(questions, "recording")]
        rules = {}
        for name, rule in RULES.items():
            replays = [replayed(cuts, rule) for cuts in known]
            found = [await served(climb_of(backend, text), rule) for text in track(questions, name)]
            pairs = list(zip(found, replays, strict=True))
            rules[name] = {
                "same_rung": sum(one[0] == other[0] for one, other in pairs),
                "same_thinking_tokens": sum(one[1] == other[1] for one, other in pairs),
                "same_answer": sum(one[2] == other[2] for one, other in pairs),
                "stopped": sum(rung != LADDER.rungs[-1].name for rung, _, _ in found),
            }
        probes = [cut for cuts in known for cut in cuts]
        # The first cut has a prompt of its own, and behind a thought that has ended nothing is new.
        further = [cut for cuts in known for cut in cuts[1:] if not cut.ended]
        again = [cut.read for cut in further if cut.read is not None]
        return {
            "prompts": len(questions),
            "rules": rules,
            "probe_seconds": median(cut.seconds for cut in probes),
            "probe_tokens": sum(cut.probe.tokens for cut in probes) / len(probes),
            "prompt_tokens_read_by_a_probe": median(again) if again else None,
            "with_logprobs": sum(cut.probe.mean_logprob is not None for cut in probes),
            "probes": len(probes),
            "left_behind": await left(backend, url, kind, questions[0]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(ENGINES))
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    given = parser.parse_args()
    kind = given.kind
    with ENGINES[kind]() as url:
        found = asyncio.run(measured(kind, url, given.prompts))
    results = {"machine": machine(), "commit": commit(), "engine": kind, **found}
    RESULTS.joinpath(f"climbs_{kind}.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
