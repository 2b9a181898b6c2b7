"""How long an engine's thoughts and answers are, and how fast it draws them: a few requests at the top rung."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from statistics import mean, median

from router.backends import canary
from router.backends.connect import Connection, connect
from router.domain import Completion, GenerationRequest, Prompt, ReasoningBudget, Sampling
from router.errors import BackendError
from router.ports import Backend

REQUESTS = 8
"""Requests that are sent, at once if the concurrency allows it."""


@dataclass(frozen=True)
class Measured:
    """What was seen of an engine.

    Attributes:
        first_token, per_token: seconds, median.
        measured_at: requests that were in progress at once.
        thoughts: thinking tokens of each request.
        answer, prompt: tokens, mean.
    """

    first_token: float
    per_token: float
    measured_at: int
    thoughts: list[int]
    answer: float
    prompt: float


@dataclass(frozen=True)
class _Seen:
    first: float
    last: float
    end: Completion


def measure(
    connection: Connection, texts: Sequence[str], top: ReasoningBudget, sampling: Sampling, concurrency: int
) -> Measured:
    """What is seen of an engine.

    Args:
        texts: prompts to send, of which the first REQUESTS are enough.

    Raises:
        BackendError: the engine does not answer, holds no budget, or does not say how many tokens it used.
    """
    seen = asyncio.run(_run(connection, texts[:REQUESTS], top, sampling, concurrency))
    thoughts = [one.end.thinking_tokens for one in seen]
    counted = [tokens for tokens in thoughts if tokens is not None]
    if len(counted) < len(seen):
        raise BackendError("backend: it does not say how many tokens it thinks")
    return Measured(
        median(one.first for one in seen),
        median(_per_token(one) for one in seen),
        min(concurrency, len(seen)),
        counted,
        mean(one.end.answer_tokens or 0 for one in seen),
        mean(one.end.prompt_tokens or 0 for one in seen),
    )


async def _run(
    connection: Connection, texts: Sequence[str], top: ReasoningBudget, sampling: Sampling, concurrency: int
) -> list[_Seen]:
    room = asyncio.Semaphore(concurrency)
    async with AsyncExitStack() as stack:
        backend = connect(connection, canary.holds_budgets, stack)
        await backend.prove()

        async def one(text: str) -> _Seen:
            async with room:
                return await _seen(backend, GenerationRequest(Prompt.of(text), top, sampling=sampling))

        return await asyncio.gather(*map(one, texts))


async def _seen(backend: Backend, request: GenerationRequest) -> _Seen:
    started, first = time.perf_counter(), None
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            now = time.perf_counter() - started
            first = now if first is None else first
            if isinstance(event, Completion):
                return _Seen(first, now, event)
    raise BackendError("backend: the stream ended without a completion")


def _per_token(seen: _Seen) -> float:
    tokens = (seen.end.thinking_tokens or 0) + (seen.end.answer_tokens or 0)
    return (seen.last - seen.first) / max(tokens - 1, 1)
