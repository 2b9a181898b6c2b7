"""One short generation of a backend: its thought, its counts, and how long they took."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TypeVar

from router.digits import counted
from router.domain import (
    Completion,
    CountSource,
    GenerationRequest,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    Sampling,
)
from router.errors import BackendBusy, BackendError, InvalidRequest, RouterError
from router.ports import Backend

T = TypeVar("T")

UNPROVEN = (CountSource.NONE, CountSource.ESTIMATE)
"""Nobody has counted; a guess proves nothing."""

BUSY_TRIES = 3
"""Tries of a probe while the engine has no room, before the last one."""

GREEDY = Sampling(temperature=0.0, max_answer_tokens=64)
"""What is seen must be the engine's doing, not chance's."""

FEW = 8
"""Tokens of a generation below which its speed says little."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a backend was for one caller: seconds to its first token, and seconds per token from then on."""

    first_token: float
    per_token: float


@dataclass(frozen=True)
class Probed:
    """The thought of one probe, or the problem that prevented it.

    Attributes:
        first: seconds to the first event.
        rest: seconds from there to the completion.
    """

    text: str
    completion: Completion | None
    problem: str = ""
    first: float = 0.0
    rest: float = 0.0

    @property
    def tokens(self) -> int | None:
        """Thinking tokens; None where nobody has counted them."""
        if self.completion is None or self.completion.count_source in UNPROVEN:
            return None
        return self.completion.thinking_tokens

    @property
    def per_token(self) -> float | None:
        """Seconds per token; None where too few have come, or nobody has counted them."""
        if self.completion is None or self.completion.answer_tokens is None or self.tokens is None:
            return None
        further = self.tokens + self.completion.answer_tokens - 1
        return self.rest / further if further >= FEW else None

    def describe(self) -> str:
        """What was seen, in a few words."""
        if self.completion is None:
            return self.problem
        if self.tokens is None:
            return "thinking tokens are not reported: nothing can be verified"
        source = self.completion.count_source.value
        return f"{counted(self.tokens, 'thinking token')} (counted by the {source}), {self.completion.finish.value}"


def speed(probed: Sequence[Probed]) -> Speed | None:
    """Medians: the first generation of an engine may be slow, and one may wait behind others. None = not measured."""
    firsts = [one.first for one in probed if one.completion is not None]
    rates = [one.per_token for one in probed if one.per_token is not None]
    return Speed(median(firsts), median(rates)) if rates else None


async def probe(backend: Backend, prompt: Prompt, budget: int, floor: int = 0) -> Probed:
    """Let a backend answer a prompt within a budget of thinking tokens; what goes wrong is a finding, too."""
    request = GenerationRequest(prompt, ReasoningBudget(str(budget), budget), floor, GREEDY)
    try:
        return await when_there_is_room(partial(timed, backend, request))
    except InvalidRequest as error:
        return Probed("", None, f"not offered: {error.problem}")
    except RouterError as error:
        return Probed("", None, str(error))


async def when_there_is_room(attempt: Callable[[], Awaitable[T]]) -> T:
    """What an attempt gives, made again where the engine is full: that says nothing about it. Raises RouterError."""
    for _ in range(BUSY_TRIES):
        try:
            return await attempt()
        except BackendBusy as error:
            await asyncio.sleep(error.retry_after)
    return await attempt()


async def timed(backend: Backend, request: GenerationRequest) -> Probed:
    """One generation, and how long its parts took. Raises RouterError."""
    text, began, first = "", time.perf_counter(), 0.0
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            first = first or time.perf_counter() - began
            if isinstance(event, ReasoningDelta):
                text += event.text
            if isinstance(event, Completion):
                return Probed(text, event, first=first, rest=time.perf_counter() - began - first)
    raise BackendError("backend: the stream ended without a completion")
