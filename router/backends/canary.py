"""Does a backend hold its budgets? A few short generations find out, at start-up (the canary) and in `doctor`.

Engines answer a budget with HTTP 200 and ignore it. A backend passes only when a small budget cut a thought that a
large budget let go on, budget 0 left no thought at all, and the tokens were counted.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from router.domain import (
    SLACK,
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


class Examined(Backend, Protocol):
    """A backend that says why it cannot serve."""

    async def check_ready(self) -> None:
        """Returns where it can serve requests. Raises BackendError, which says why it cannot."""
        ...


PROBES = (
    Prompt.of("State the final answer to the following arithmetic problem: 57 + 87 - 70 + 15 - 8 + 93 - 21 ="),
    Prompt.of("Five people sit in a row, Ann at no end, Bob left of Cid, Dan next to Eve. How many ways are there?"),
    Prompt.of("Write down all prime numbers below 100, one by one, and check each."),
)
"""Tried in turn until one makes the model think for more than SMALL tokens."""

UNPROVEN = (CountSource.NONE, CountSource.ESTIMATE)
"""Nobody has counted; a guess proves nothing."""

SMALL, LARGE, LONGER = 8, 64, 8
"""Two budgets, and how far a floor lies above the natural length of a thought; all in tokens."""


BUSY_TRIES = 3
"""Tries of a probe while the engine has no room, before the last one."""


@dataclass(frozen=True)
class Finding:
    """The result of one check: its name, whether it passed, and what was seen.

    Attributes:
        needed: budgets are not enforced unless this check passes.
    """

    check: str
    passed: bool
    seen: str
    needed: bool = True


@dataclass(frozen=True)
class _Seen:
    """The thought of one probe, or the problem that prevented it."""

    text: str
    completion: Completion | None
    problem: str = ""

    @property
    def tokens(self) -> int | None:
        if self.completion is None or self.completion.count_source in UNPROVEN:
            return None
        return self.completion.thinking_tokens

    def describe(self) -> str:
        if self.completion is None:
            return self.problem
        if self.tokens is None:
            return "thinking tokens are not reported: nothing can be verified"
        source = self.completion.count_source.value
        return f"{self.tokens} thinking tokens (counted by the {source}), {self.completion.finish.value}"


async def examine(backend: Examined) -> AsyncIterator[Finding]:
    """Check readiness, the budgets 0, SMALL and LARGE, and a floor; one finding each."""
    try:
        await backend.check_ready()
    except BackendError as error:
        yield Finding("ready", False, str(error))
        return
    yield Finding("ready", True, "yes")
    # Some templates think although they were asked not to, and some parsers then call the thought an answer: text, too.
    nothing = await _probe(backend, PROBES[0], 0)
    silent = nothing.completion is not None and not nothing.text and not nothing.tokens
    yield Finding("budget 0", silent, "no thought" if silent else nothing.describe())
    # A thought that ends by itself below SMALL says nothing about a cap of SMALL.
    for probe in PROBES:
        large = await _probe(backend, probe, LARGE)
        if (large.tokens or 0) > SMALL + SLACK:
            break
    yield Finding(f"budget {LARGE}", large.tokens is not None and large.tokens <= LARGE + SLACK, large.describe())
    small = await _probe(backend, probe, SMALL)
    yield _bites(small, large)
    # A floor below the natural length would be respected by any engine, so it lies above.
    floor = min((large.tokens or 0) + LONGER, LARGE)
    floored = await _probe(backend, probe, LARGE, floor)
    held = floored.tokens is not None and floor - SLACK <= floored.tokens <= LARGE + SLACK
    yield Finding(f"floor {floor}", held, floored.describe(), needed=False)


async def holds_budgets(backend: Examined, watch: Callable[[Finding], None] = lambda finding: None) -> bool:
    """True if every needed check passes. `watch` sees each finding as it comes: a slow engine takes minutes."""
    holds = True
    async for finding in examine(backend):
        watch(finding)
        holds = holds and (finding.passed or not finding.needed)
    return holds


def _bites(small: _Seen, large: _Seen) -> Finding:
    check = f"budget {SMALL}"
    if small.tokens is None or large.tokens is None:
        return Finding(check, False, small.describe())
    if large.tokens <= SMALL + SLACK:
        return Finding(check, False, f"not proved: the model thinks {large.tokens} tokens where {LARGE} are allowed")
    return Finding(check, small.tokens <= SMALL + SLACK, small.describe())


async def _probe(backend: Backend, prompt: Prompt, budget: int, floor: int = 0) -> _Seen:
    request = GenerationRequest(prompt, ReasoningBudget(str(budget), budget), floor, Sampling(max_answer_tokens=64))
    try:
        return await _when_there_is_room(backend, request)
    except InvalidRequest as error:
        return _Seen("", None, f"not offered: {error.problem}")
    except RouterError as error:  # a finding, so that doctor goes on with the other checks
        return _Seen("", None, str(error))


async def _when_there_is_room(backend: Backend, request: GenerationRequest) -> _Seen:
    """Run a probe, again where the engine is full: that says nothing about budgets. Raises RouterError."""
    for _ in range(BUSY_TRIES):
        try:
            return await _run(backend, request)
        except BackendBusy as error:
            await asyncio.sleep(error.retry_after)
    return await _run(backend, request)


async def _run(backend: Backend, request: GenerationRequest) -> _Seen:
    text = ""
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            if isinstance(event, ReasoningDelta):
                text += event.text
            if isinstance(event, Completion):
                return _Seen(text, event)
    raise BackendError("the stream ended without a completion")
