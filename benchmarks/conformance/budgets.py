"""Are budgets held to the token? Every held-out question at every budget, in each way to hold one.

Where an engine serves the pocket reasoner's weights, thinking tokens and answers are compared with those of the
embedded run of the same weights.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from rich.progress import track

from benchmarks.conformance.heard import heard
from router.backends import canary
from router.backends.connect import Connection, connect
from router.domain import Completion, GenerationRequest, Prompt, ReasoningBudget, Sampling
from router.ports import Backend
from training.collect.questions import Question
from training.collect.scorers import SCORERS

BUDGETS = (0, 8, 16, 64, 256)
FLOOR = 96
LONGEST, AT_ONCE = 64, 4


@dataclass(frozen=True)
class Answer:
    """Result of one generation."""

    right: bool
    text: str
    completion: Completion


async def answer(backend: Backend, question: Question, budget: int, floor: int = 0) -> Answer:
    """Run one greedy generation and score it."""
    rung, sampling = ReasoningBudget(str(budget), budget), Sampling(0.0, LONGEST)
    given = await heard(backend, GenerationRequest(Prompt.of(question.prompt), rung, floor, sampling))
    verdict = SCORERS[question.scorer](given.text, question.reference, question.metadata)
    return Answer(verdict.correct == 1, given.text, given.completion)


async def answers(backend: Backend, questions: list[Question], budget: int, floor: int = 0) -> list[Answer]:
    """Answers to all questions, a few at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> Answer:
        async with gate:
            return await answer(backend, question, budget, floor)

    return await asyncio.gather(*map(one, questions))


@asynccontextmanager
async def way(connection: Connection) -> AsyncIterator[tuple[str, Backend]]:
    """A backend that passed the canary, and its fingerprint."""
    async with AsyncExitStack() as stack:
        backend = connect(connection, canary.holds_budgets, stack)
        yield await backend.prove(), backend


async def measured(connection: Connection, questions: list[Question], embedded: Backend | None) -> dict[str, Any]:
    """Exactness by budget and floor, and agreement with the embedded run if it has the same weights."""
    async with way(connection) as (fingerprint, backend):
        rows = []
        for budget in track(BUDGETS, f"{connection.kind}, {connection.enforcement}"):
            found = await answers(backend, questions, budget)
            known = [] if embedded is None else await answers(embedded, questions, budget)
            rows.append(by_budget(budget, found, known))
        floored = await answers(backend, questions, 256, FLOOR) if connection.enforcement != "native" else []
        below = sum((one.completion.thinking_tokens or 0) < FLOOR for one in floored)
    return {
        "fingerprint": fingerprint,
        "prompts": len(questions),
        "budgets": rows,
        "floor": FLOOR,
        "floored": len(floored),
        "below_floor": below,
    }


def by_budget(budget: int, found: list[Answer], known: list[Answer]) -> dict[str, Any]:
    """The table's row for one budget."""
    used = [one.completion.thinking_tokens or 0 for one in found]
    row: dict[str, Any] = {
        "budget": budget,
        "over": sum(tokens > budget for tokens in used),
        "most": max(used),
        "at_the_budget": sum(tokens == budget for tokens in used),
        "answered": sum(bool(one.text) for one in found),
        "right": sum(one.right for one in found) / len(found),
    }
    if known:
        same = [a.completion.thinking_tokens == b.completion.thinking_tokens for a, b in zip(found, known, strict=True)]
        row |= {
            "right_embedded": sum(one.right for one in known) / len(known),
            "same_thinking_tokens": sum(same),
            "same_answer": sum(a.text.strip() == b.text.strip() for a, b in zip(found, known, strict=True)),
        }
    return row
