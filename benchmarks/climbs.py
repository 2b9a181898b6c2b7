"""`make climbs-vllm`, `make climbs-llamacpp`: does a real engine serve what a replay of its probes says?

Every held-out question is thought once in steps, with a probe at every cut, and each rule is replayed over these. Then
each rule serves the question anew. Greedy decoding makes both the same, as far as the engine's own arithmetic allows:
engines compute batches of other sizes in another order. Probes and whole generations are timed, and calls are left at
every step.
"""

import argparse
import asyncio
import json
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from statistics import median, quantiles
from typing import Any

from rich.progress import track

from benchmarks import engines
from benchmarks.harness import RESULTS, commit, machine
from router.answer_keys import answer_key
from router.backends import canary
from router.backends.completions import Piece
from router.backends.connect import Connection, connect
from router.backends.http import Chunk
from router.backends.verified import VerifiedBackend
from router.backends.whole import whole_answer
from router.domain import (
    BudgetLadder,
    Choice,
    Decision,
    DecisionSource,
    GenerationRequest,
    MaxLoss,
    Prompt,
    ReasoningBudget,
    Sampling,
    ServedEvent,
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
WAYS: dict[str, StoppingRule | None] = {"plain": None, "never stops": AgreeRule(0, len(CAPS)), **RULES}
"""What is timed: the top rung in one go, probes at every cut that stop nothing, and each rule."""

PROMPTS, LEAVES, TIMED, ROUNDS = 60, 5, 20, 3
ENGINES = {"vllm": engines.vllm, "llama_cpp": engines.llama_cpp_pocket}
"""Both serve the pocket reasoner's weights."""


@dataclass(frozen=True)
class Cut:
    """A cut of a thought, and what was probed there.

    Attributes:
        prompt: tokens of the prompt and the thought before it.
        read: tokens that the engine read for the probe, as they were not in its cache.
    """

    tokens: int
    ended: bool
    probe: Probe
    seconds: float
    prompt: int
    read: int


@dataclass(frozen=True)
class Given:
    """An answer, where its thought ended, and how often it was probed on the way."""

    rung: str
    tokens: int
    text: str
    probes: int = field(default=0, compare=False)


def request_of(text: str) -> GenerationRequest:
    """A greedy request for at most the top rung."""
    return GenerationRequest(Prompt.of(text), LADDER.rungs[-1], 0, Sampling(0.0, PROBE_TOKENS))


def climb_of(backend: VerifiedBackend, text: str) -> Climb:
    """A thought that has not begun."""
    climb = backend.climb(request_of(text))
    if climb is None:
        raise SystemExit("this engine cannot have a thought step by step")
    return climb


def prompts_read(backend: VerifiedBackend, url: str, kind: str) -> Callable[[], int]:
    """Says how many tokens of prompts the engine has read so far, without those in its cache."""
    if kind == "vllm":
        return lambda: counter(url, "vllm:prefix_cache_queries_total") - counter(url, "vllm:prefix_cache_hits_total")
    read: list[int] = []
    assert backend.phases is not None
    api = backend.phases.client.api

    def piece(chunk: Chunk) -> Piece:
        if timings := chunk.get("timings"):
            read.append(timings["prompt_n"])
        return api.piece(chunk)

    backend.phases.client.api = replace(api, piece=piece)
    return lambda: sum(read)


def counter(url: str, name: str) -> int:
    """A counter of vLLM, over all of its engines."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith((name + "{", name + " ")))


async def recorded(climb: Climb, read: Callable[[], int]) -> list[Cut]:
    """A thought with a probe at every cut."""
    cuts = []
    for cap in CAPS:
        async with aclosing(climb.think(cap)) as deltas:
            async for _ in deltas:
                pass
        before, began = await asyncio.to_thread(read), time.perf_counter()
        probe = await climb.probe(PROBE_TOKENS, end=False)
        seconds = time.perf_counter() - began
        prompt = (climb.taken(probe).prompt_tokens or 0) + climb.tokens
        cuts.append(Cut(climb.tokens, climb.ended, probe, seconds, prompt, await asyncio.to_thread(read) - before))
    return cuts


def replayed(cuts: list[Cut], rule: StoppingRule) -> Given:
    """What a rule gives over the recorded cuts."""
    evidence: Evidence | None = None
    for position, cut in enumerate(cuts[:-1]):
        if cut.ended:
            break
        evidence = following(evidence, answer_key(cut.probe.text, "text"), cut.probe, cut.tokens, False)
        if stops(rule, position, evidence):
            return Given(LADDER.rungs[position].name, cut.tokens, cut.probe.text)
    return Given(LADDER.rungs[-1].name, cuts[-1].tokens, cuts[-1].probe.text)


async def served(backend: VerifiedBackend, text: str, rule: StoppingRule | None) -> Given:
    """What the router serves by a rule; without one, at the top rung."""
    if rule is None:
        return await given(backend.stream(request_of(text)))
    certificate = StoppingCertificate(0.02, 0.1, rule, 100, 0.0, 0.0)
    choice = Choice(len(CAPS) - 1, True, None, "", certificate, certificate.checkpoints(len(CAPS)))
    target, source = MaxLoss(0.02), DecisionSource.CLASSIFIER
    decision = Decision("", "", "", LADDER, choice, target, source, "", None, (0.0,) * len(CAPS))
    climb = climb_of(backend, text)
    key = partial(answer_key, kind="text")
    return await given(StoppingClimber(climb, decision, rule, key, lambda _: None, greedy=True).stream())


async def given(stream: AsyncGenerator[ServedEvent]) -> Given:
    """What a stream gives. Raises BackendError."""
    text, end = await whole_answer(stream)
    return Given(end.budget.name, end.thinking_tokens or 0, text, len(end.checkpoints))


async def wall_times(backend: VerifiedBackend, questions: list[str]) -> dict[str, Any]:
    """Seconds of whole generations, one at a time; the ways take turns at every question."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    probes: dict[str, list[int]] = {way: [] for way in WAYS}
    turns = list(product(range(ROUNDS), range(len(questions))))
    for turn, number in track(turns, "whole generations"):
        ways = list(WAYS)
        for way in ways[(turn + number) % len(ways) :] + ways[: (turn + number) % len(ways)]:
            began = time.perf_counter()
            found = await served(backend, questions[number], WAYS[way])
            seconds[way].append(time.perf_counter() - began)
            probes[way].append(found.probes)
    return {way: spread(seconds[way], seconds["plain"], probes[way]) for way in WAYS}


def spread(seconds: list[float], plain: list[float], probes: list[int]) -> dict[str, float]:
    """Quartiles of seconds, how many more than plain ones the median pair has, and how many more for each probe."""
    low, middle, high = quantiles(seconds, n=4)
    more = [one - other for one, other in zip(seconds, plain, strict=True)]
    each = [extra / count for extra, count in zip(more, probes, strict=True) if count]
    quartiles = {"seconds": middle, "lower_quartile": low, "upper_quartile": high, "more": median(more)}
    return quartiles | {"probes": sum(probes) / len(probes), "more_a_probe": median(each) if each else 0.0}


async def left(backend: VerifiedBackend, url: str, kind: str, text: str) -> int:
    """Generations still under way after callers have left at every step."""
    for number in range(LEAVES):
        task = asyncio.create_task(served(backend, text, RULES["agree 2"]))
        await asyncio.sleep(0.05 * (number + 1))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(1)
    return await asyncio.to_thread(running, url, kind)


def running(url: str, kind: str) -> int:
    """Generations that the engine itself counts."""
    if kind == "vllm":
        return counter(url, "vllm:num_requests_running")
    with urllib.request.urlopen(f"{url}/slots", timeout=10) as reply:
        return sum(slot["is_processing"] for slot in json.load(reply))


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
        read = prompts_read(backend, url, kind)
        known = [await recorded(climb_of(backend, text), read) for text in track(questions, "recording")]
        rules = {}
        for name, rule in RULES.items():
            replays = [replayed(cuts, rule) for cuts in known]
            found = [await served(backend, text, rule) for text in track(questions, name)]
            pairs = list(zip(found, replays, strict=True))
            rules[name] = {
                "same_rung": sum(one.rung == other.rung for one, other in pairs),
                "same_thinking_tokens": sum(one.tokens == other.tokens for one, other in pairs),
                "same_answer": sum(one.text == other.text for one, other in pairs),
                "stopped": sum(one.rung != LADDER.rungs[-1].name for one in found),
                "stopped_at": Counter(one.rung for one in found),
                "thinking_tokens": sum(one.tokens for one in found) / len(found),
            }
        probes = [cut for cuts in known for cut in cuts]
        # The first cut has a prompt of its own, and behind a thought that has ended nothing is new.
        further = [cut for cuts in known for cut in cuts[1:] if not cut.ended]
        return {
            "prompts": len(questions),
            "rules": rules,
            "probe_seconds": median(cut.seconds for cut in probes),
            "probe_tokens": sum(cut.probe.tokens for cut in probes) / len(probes),
            "prompt_tokens_read_by_a_probe": median(cut.read for cut in further),
            "prompt_tokens_of_a_probe": median(cut.prompt for cut in further),
            "with_logprobs": sum(cut.probe.mean_logprob is not None for cut in probes),
            "probes": len(probes),
            "whole_generations": await wall_times(backend, questions[:TIMED]),
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
