"""Where a thought is cut that is had in steps: at the token at which the engine's own enforcement cuts it.

An engine may cut some tokens below a budget, as where it counts a line break that the template wrote. Short answers,
compared when the engine is verified, show how many. Collection and serving both cut there.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from router.backends.canary import PROBES, SMALL
from router.backends.climbing import TwoPhaseClimb
from router.backends.probes import when_there_is_room
from router.backends.two_phase import TwoPhase
from router.backends.whole import whole_answer
from router.domain import (
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningBudget,
    Sampling,
)
from router.errors import BackendError, InvalidRequest
from router.ports import Backend

EARLY = (0, 1)
"""Tokens below a budget at which an engine may cut."""

COMPARED = 32
"""Tokens of an answer that is compared with the engine's own."""

REMEDY = "BUDGET_ROUTER_BACKEND_ENFORCEMENT=two_phase, and --enforcement two_phase in collection, gives what is cut"


@dataclass(frozen=True, slots=True)
class Steps:
    """Whether an engine's thoughts can be had in steps.

    Attributes:
        early: tokens below a budget at which they are cut.
        obstacle: why they cannot; "" = they can.
    """

    early: int = 0
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, the tokens of the thought before it, and how it ended."""

    text: str
    thinking_tokens: int | None
    finish: FinishReason


async def fit(native: Backend, phases: TwoPhase) -> Steps:
    """How thoughts must be cut to be those of an engine that holds budgets by itself, which must hold them now.

    Args:
        native: the engine's own enforcement.
        phases: cut a thought, and close it as that enforcement does.
    """
    small = ReasoningBudget(str(SMALL), SMALL)
    asked = [GenerationRequest(prompt, small, sampling=Sampling(0.0, COMPARED)) for prompt in PROBES]
    try:
        served = [(one, await when_there_is_room(partial(_served, native, one))) for one in asked]
        obstacles = []
        for early in EARLY:
            if not (differs := await _difference(phases, served, early)):
                return Steps(early)
            obstacles.append(differs)
    except (BackendError, InvalidRequest) as error:
        return Steps(obstacle=str(error))
    return Steps(obstacle=obstacles[0])


async def _difference(phases: TwoPhase, served: list[tuple[GenerationRequest, Answered]], early: int) -> str:
    """How the engine's own answers differ from those behind a cut; "" = they do not."""
    for request, its in served:
        cut = await when_there_is_room(partial(_cut, phases, request, early))
        if not same(cut, its):
            return (
                f"with a budget of {SMALL} tokens the engine itself thinks {its.thinking_tokens} and answers "
                f"{its.text[:40]!r}, and a thought that is cut has {cut.thinking_tokens} and {cut.text[:40]!r}; "
                f"{REMEDY}"
            )
    return ""


def same(cut: Answered, served: Answered) -> bool:
    """True where two answers are equal; of two that were cut at their limit, as far as both go.

    Engines count the end marker against the limit of a whole generation, so theirs may end a few tokens earlier.
    """
    cut_short = cut.finish == served.finish == FinishReason.TRUNCATED
    shorter, longer = sorted((cut.text, served.text), key=len)
    return cut.thinking_tokens == served.thinking_tokens and (
        longer.startswith(shorter) if cut_short else (cut.text, cut.finish) == (served.text, served.finish)
    )


async def _served(native: Backend, request: GenerationRequest) -> Answered:
    return await _read(native.stream(request))


async def _cut(phases: TwoPhase, request: GenerationRequest, early: int) -> Answered:
    climb = TwoPhaseClimb(phases, request, early)
    async with aclosing(climb.think(None)) as deltas:
        async for _ in deltas:
            pass
    return await _read(climb.answer())


async def _read(stream: AsyncGenerator[GenerationEvent]) -> Answered:
    text, end = await whole_answer(stream)
    return Answered(text, end.thinking_tokens, end.finish)
