"""Does a backend hold its budgets? A few short generations find out, at start-up (the canary) and in `doctor`.

Engines answer a budget with HTTP 200 and ignore it. A backend passes only when a small budget cut a thought that a
large budget let continue, budget 0 left no thought at all, and the tokens were counted. The same generations show how
fast it is.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from router.backends.probes import Probed, Speed, probe, speed
from router.digits import counted
from router.domain import SLACK, Prompt
from router.errors import BackendError
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

SMALL, LARGE, LONGER = 8, 64, 8
"""Two budgets, and how far a floor lies above the natural length of a thought; all in tokens."""


@dataclass(frozen=True)
class Finding:
    """The result of one check: its name, whether it passed, and what was seen.

    Attributes:
        needed: budgets are not enforced unless this check passes.
        speed: what was measured, where this is the check that measures.
    """

    check: str
    passed: bool
    seen: str
    needed: bool = True
    speed: Speed | None = None


async def examine(backend: Examined) -> AsyncIterator[Finding]:
    """Check readiness, the budgets 0, SMALL and LARGE, a floor, and the speed; one finding each."""
    try:
        await backend.check_ready()
    except BackendError as error:
        yield Finding("ready", False, str(error))
        return
    yield Finding("ready", True, "yes")
    # Some templates think although they were asked not to, and some parsers then call the thought an answer: text, too.
    nothing = await probe(backend, PROBES[0], 0)
    silent = nothing.completion is not None and not nothing.text and not nothing.tokens
    yield Finding("budget 0", silent, "no thought" if silent else nothing.describe())
    # A thought that ends by itself below SMALL says nothing about a cap of SMALL.
    seen = [nothing]
    for prompt in PROBES:
        large = await probe(backend, prompt, LARGE)
        seen.append(large)
        if (large.tokens or 0) > SMALL + SLACK:
            break
    yield Finding(f"budget {LARGE}", large.tokens is not None and large.tokens <= LARGE + SLACK, large.describe())
    small = await probe(backend, prompt, SMALL)
    yield _bites(small, large)
    # A floor below the natural length would be respected by any engine, so it lies above.
    floor = min((large.tokens or 0) + LONGER, LARGE)
    floored = await probe(backend, prompt, LARGE, floor)
    held = floored.tokens is not None and floor - SLACK <= floored.tokens <= LARGE + SLACK
    yield Finding(f"at least {floor}", held, floored.describe(), needed=False)
    yield _speed([*seen, small, floored])


async def holds_budgets(backend: Examined, watch: Callable[[Finding], None] = lambda finding: None) -> bool:
    """True if every needed check passes. `watch` sees each finding as it comes: a slow engine takes minutes."""
    holds = True
    async for finding in examine(backend):
        watch(finding)
        holds = holds and (finding.passed or not finding.needed)
    return holds


def _bites(small: Probed, large: Probed) -> Finding:
    check = f"budget {SMALL}"
    if small.tokens is None or large.tokens is None:
        return Finding(check, False, small.describe())
    if large.tokens <= SMALL + SLACK:
        thinks = counted(large.tokens, "token")
        return Finding(check, False, f"not proved: the model thinks {thinks} where {LARGE} are allowed")
    return Finding(check, small.tokens <= SMALL + SLACK, small.describe())


def _speed(probed: list[Probed]) -> Finding:
    measured = speed(probed)
    if measured is None:
        return Finding("speed", False, "not measured: too few tokens were counted", needed=False)
    shown = f"first token after {measured.first_token:.2g} s, then {measured.per_token:.2g} s a token"
    return Finding("speed", True, shown, needed=False, speed=measured)
