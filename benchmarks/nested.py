"""`make nested-vllm`, `make nested-llamacpp`: is nested collection what a real engine serves, and what does it save?

Serves the pocket reasoner's weights, answers held-out questions at every rung both ways, and compares the answers and
the counts of tokens, and beside it two independent runs: engines need not compute alike twice.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from itertools import chain
from operator import eq
from typing import Any

from benchmarks import engines
from benchmarks.harness import RESULTS, commit, machine
from router.backends import canary
from router.backends.connect import Connection, connect
from router.backends.cutting import Answered, same
from router.backends.two_phase import TwoPhase
from router.backends.verified import VerifiedBackend
from router.domain import FinishReason, GenerationRequest, Prompt, Sampling
from router.errors import BackendError
from training.collect.answering import answered
from training.collect.nested import cuts, obstacle
from training.collect.questions import Question, held_out_questions
from training.collect.recipes import POCKET_ANSWER_TOKENS
from training.collect.rows import tokens_of_trace
from training.collect.traces import tried_again
from training.collect.units import Answer
from training.pocket.tasks import LADDER

PROMPTS = 60
ENGINES = {"vllm": engines.vllm, "llama_cpp": engines.llama_cpp_pocket}
Way = Callable[[GenerationRequest], Awaitable[list[Answer]]]


async def compared(connection: Connection, questions: list[Question], at_once: int) -> dict[str, Any]:
    """Both collections with one enforcement."""
    async with AsyncExitStack() as stack:
        backend = connect(connection, canary.holds_budgets, stack)
        try:
            fingerprint = await backend.prove()
        except BackendError as error:
            return {"enforcement": connection.enforcement, "obstacle": str(error)}
        if backend.phases is None or obstacle(backend, LADDER):
            return {"fingerprint": fingerprint, "obstacle": obstacle(backend, LADDER)}
        await _timed(partial(_independent, backend), questions[:4], at_once)  # warm
        alone, seconds_alone = await _timed(partial(_independent, backend), questions, at_once)
        again, _ = await _timed(partial(_independent, backend), questions, at_once)
        cut, seconds_cut = await _timed(partial(_nested, backend.phases, backend.steps.early), questions, at_once)
    served = [tried_again(answers) for answers in cut]
    pairs = [pair for one, other in zip(alone, served, strict=True) for pair in zip(one, other, strict=True)]
    differ = [(one, other) for one, other in pairs if not same(plain(other), plain(one))]
    drawn, anew = sum(map(tokens_of_trace, cut)), sum(_tokens(one) for one, _ in pairs)
    return {
        "fingerprint": fingerprint,
        "prompts": len(questions),
        "at_once": at_once,
        "rungs": len(LADDER),
        "answers": len(pairs),
        "same_in_two_independent_runs": sum(map(eq, chain(*alone), chain(*again))),
        "same": len(pairs) - len(differ),
        "differ": [(vars_of(one), vars_of(other)) for one, other in differ[:5]],
        "tokens_independent": anew,
        "tokens_nested": drawn,
        "saved": 1 - drawn / anew,
        "seconds_independent": seconds_alone,
        "seconds_nested": seconds_cut,
    }


async def _timed(way: Way, questions: list[Question], at_once: int) -> tuple[list[list[Answer]], float]:
    gate, began = asyncio.Semaphore(at_once), time.perf_counter()

    async def one(question: Question) -> list[Answer]:
        sampling = Sampling(0.0, POCKET_ANSWER_TOKENS)
        async with gate:
            return await way(GenerationRequest(Prompt.of(question.prompt), LADDER.rungs[-1], sampling=sampling))

    found = await asyncio.gather(*map(one, questions))
    return found, time.perf_counter() - began


async def _independent(backend: VerifiedBackend, request: GenerationRequest) -> list[Answer]:
    following = [*LADDER.rungs[1:], LADDER.rungs[-1]]
    return [
        await answered(backend, replace(request, budget=rung), longer)
        for rung, longer in zip(LADDER.rungs, following, strict=True)
    ]


async def _nested(phases: TwoPhase, early: int, request: GenerationRequest) -> list[Answer]:
    return [answer async for answer in cuts(phases, request, LADDER.rungs, early)]


def _tokens(answer: Answer) -> int:
    return (answer.thinking_tokens or 0) + (answer.answer_tokens or 0)


def plain(answer: Answer) -> Answered:
    """An answer as it is compared."""
    return Answered(answer.text, answer.thinking_tokens, FinishReason(answer.finish))


def vars_of(answer: Answer) -> dict[str, Any]:
    """What is compared of an answer."""
    names = ("text", "thinking_tokens", "answer_tokens", "finish", "attempts")
    return {name: getattr(answer, name) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(ENGINES))
    parser.add_argument("--url", help="of an engine that serves the pocket reasoner as pocket; else one is started")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--at-once", type=int, default=1, help="prompts in progress")
    given = parser.parse_args()
    if given.url:
        run(given.kind, given.url, given.prompts, given.at_once)
    else:
        with ENGINES[given.kind]() as url:
            run(given.kind, url, given.prompts, given.at_once)


def run(kind: str, url: str, prompts: int, at_once: int) -> None:
    """Compare with both enforcements, print the figures, and write `results/nested_KIND.json`."""
    every = held_out_questions(2, 77)
    questions = every[:: max(1, len(every) // prompts)][:prompts]
    ways = [
        asyncio.run(compared(Connection(kind, url, "pocket", enforcement=way), questions, at_once))
        for way in ("native", "two_phase")
    ]
    results = {"machine": machine(), "commit": commit(), "engine": kind, "ways": ways}
    RESULTS.joinpath(f"nested_{kind}.json").write_text(json.dumps(results, indent=1) + "\n")
    for way in ways:
        print("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in way.items()))


if __name__ == "__main__":
    main()
