"""How long an engine's thoughts and answers are, and how fast it draws them: a few requests at the top rung."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import mean, median

from router.backends import canary
from router.backends.connect import Connection, connect
from router.backends.probes import Probed, timed
from router.domain import GenerationRequest, Prompt, ReasoningBudget, Sampling
from router.errors import BackendError

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


def measure(
    connection: Connection, prompts: Sequence[Prompt], top: ReasoningBudget, sampling: Sampling, concurrency: int
) -> Measured:
    """What is seen of an engine.

    Args:
        prompts: to send, of which the first REQUESTS are enough.

    Raises:
        BackendError: the engine does not answer, holds no budget, or does not say how many tokens it used.
    """
    seen = asyncio.run(_run(connection, prompts[:REQUESTS], top, sampling, concurrency))
    ends = [one.completion for one in seen if one.completion is not None]
    counted = [end.thinking_tokens for end in ends if end.thinking_tokens is not None]
    if len(counted) < len(seen):
        raise BackendError("backend: it does not say how many tokens it thinks")
    return Measured(
        median(one.first for one in seen),
        median(_per_token(one) for one in seen),
        min(concurrency, len(seen)),
        counted,
        mean(end.answer_tokens or 0 for end in ends),
        mean(end.prompt_tokens or 0 for end in ends),
    )


async def _run(
    connection: Connection, prompts: Sequence[Prompt], top: ReasoningBudget, sampling: Sampling, concurrency: int
) -> list[Probed]:
    room = asyncio.Semaphore(concurrency)
    async with AsyncExitStack() as stack:
        backend = connect(connection, canary.holds_budgets, stack)
        await backend.prove()

        async def one(prompt: Prompt) -> Probed:
            async with room:
                return await timed(backend, GenerationRequest(prompt, top, sampling=sampling))

        return await asyncio.gather(*map(one, prompts))


def _per_token(seen: Probed) -> float:
    end = seen.completion
    tokens = 0 if end is None else (end.thinking_tokens or 0) + (end.answer_tokens or 0)
    return seen.rest / max(tokens - 1, 1)
