"""The answers behind cuts of a thought that was served, as serving gives them at each rung."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from router.backends.whole import whole_answer
from router.domain import Completion, FinishReason, ReasoningBudget
from router.errors import BackendError
from router.learning.quiet import Quietly
from router.ports import Climb

WHOLE = (FinishReason.NATURAL, FinishReason.FORCED, FinishReason.CONVERGED)
"""Endings of answers that were not cut off."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and the thought before it.

    Attributes:
        whole: it says something, and was not cut off.
        thinking_tokens: of all attempts.
        drawn: tokens of the answer.
        known: False of an answer that could not be had.
    """

    text: str
    whole: bool
    thinking_tokens: int
    drawn: int
    known: bool = True

    @classmethod
    def of(cls, text: str, end: Completion, thinking_tokens: int) -> "Answer":
        """An answer that has come to its end."""
        return cls(text, bool(text.strip()) and end.finish in WHOLE, thinking_tokens, end.answer_tokens or 0)


async def answers(
    thought: Climb, rungs: Sequence[ReasoningBudget], served: Answer, quietly: Quietly
) -> tuple[list[Answer], int]:
    """The answer of each rung, of which the last was served, and the tokens that were drawn for the others.

    A cut that leaves the thought as it is has the served answer, for nothing.

    Args:
        quietly: asks the engine.

    Raises:
        InvalidRequest, BackendError.
    """
    found: list[Answer] = []
    for rung in rungs[:-1]:
        cut = thought.upto(rung)
        if cut.ended:
            found.append(replace(served, drawn=0))
        else:
            found.append(await quietly(partial(answered, cut)))
    return [*_tried_again([*found, served])], sum(answer.drawn for answer in found)


async def answered(cut: Climb) -> Answer:
    """The answer behind a thought as it is. Raises InvalidRequest, BackendError."""
    text, end = await whole_answer(cut.answer())
    if end.finish is FinishReason.ABORTED:
        raise BackendError("backend: it gave up in the middle")
    return Answer.of(text, end, cut.tokens)


def lost(rungs: Sequence[ReasoningBudget], served: Answer) -> list[Answer]:
    """The answers of all rungs where none of those that are cut could be had."""
    return [
        served
        if rung.tokens is None or rung.tokens > served.thinking_tokens
        else Answer("", False, rung.tokens, 0, known=False)
        for rung in rungs
    ]


def _tried_again(found: Sequence[Answer]) -> list[Answer]:
    """The answers as serving gives them: where a rung gave none, that of a second attempt at the next one."""
    *lower, served = found
    return [*(_second(*pair) for pair in zip(lower, found[1:], strict=True)), served]


def _second(first: Answer, longer: Answer) -> Answer:
    if first.text.strip():
        return first
    return replace(longer, thinking_tokens=first.thinking_tokens + longer.thinking_tokens)
