"""The attempts at one answer: a second one where the first gave none. Serving and collection share the rule.

A thought that takes all the tokens there are leaves none for the answer; some engines end before they answer, or answer
with blanks. The caller has paid for the thought by then, so one more attempt is cheaper than an empty reply.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    FinishReason,
    GenerationEvent,
    RefusalDelta,
    ToolCall,
    ToolCallDelta,
)

T = TypeVar("T")

RETRIED = (
    FinishReason.NATURAL,
    FinishReason.FORCED,
    FinishReason.CONVERGED,
    FinishReason.TRUNCATED,
    FinishReason.NO_ANSWER,
)
"""Endings that mean no answer where none came. The others say by themselves what happened."""

CERTAINTY = (CountSource.ESTIMATE, CountSource.ROUTER, CountSource.ENGINE, CountSource.NONE)
"""Sources of a known count, the least certain one first. Nobody need count where no thought was asked for."""


class Attempts:
    """Follows the events of up to two attempts.

    Args:
        begun: the caller has begun the answer, which may be whole by then.

    Attributes:
        number: counts the attempts, from 1; 0 = none is under way.
        completion: the end of all attempts, once it is there.
    """

    def __init__(self, begun: bool = False) -> None:
        self.number = 0
        self.completion: Completion | None = None
        self._answered = begun
        self._ended: list[Completion] = []

    def over(self, first: T, second: T) -> Iterator[T]:
        """What to ask for: `first`, then `second` if the first attempt gave no answer."""
        for self.number, asked in enumerate((first, second), 1):
            yield asked
            if self.completion is not None:
                return

    def take(self, event: GenerationEvent) -> GenerationEvent | None:
        """The event to pass on; None for the completion of a first attempt that gave no answer."""
        if type(event) is not Completion:
            self._answered = self._answered or _answers(event)
            return event
        self._ended.append(event)
        unanswered = not self._answered and event.finish in RETRIED
        if unanswered and self.number == 1:
            return None
        self.completion = _sum(self._ended)
        if unanswered:
            self.completion = replace(self.completion, finish=FinishReason.NO_ANSWER)
        return self.completion


def _answers(event: GenerationEvent) -> bool:
    if type(event) is ToolCallDelta:
        return event.call != ToolCall("", "", "")
    return type(event) in (ContentDelta, RefusalDelta)


def _sum(ended: list[Completion]) -> Completion:
    """The last attempt's completion, with everything that was thought in all of them; unknown if it is in any."""
    if len(ended) == 1:
        return ended[0]
    counted = [one.thinking_tokens for one in ended if one.thinking_tokens is not None]
    known = len(counted) == len(ended)
    source = min((one.count_source for one in ended), key=CERTAINTY.index)
    return replace(
        ended[-1],
        attempts=len(ended),
        thinking_tokens=sum(counted) if known else None,
        count_source=source if known else CountSource.NONE,
        counts_disagree=any(one.counts_disagree for one in ended),
        violated=any(one.budget_violated for one in ended),
        probe_tokens=sum(one.probe_tokens for one in ended),
        checkpoints=sum((one.checkpoints for one in ended), ()),
    )
