"""What an engine's chunks say of tokens: usage, counts while it thinks, and token ids."""

from typing import Any

from router.backends.counting import Count, Tally, settle
from router.backends.dialects import Dialect
from router.backends.failures import MappedErrors
from router.backends.http import Chunk, expect_type
from router.backends.token_ids import token_ids, valid_count
from router.domain import SLACK


class EngineCounts:
    """Follows the counts of a chat stream.

    Attributes:
        ids: token ids drawn while thinking, where the engine sends them.
        answer_ids: how many were drawn for the answer.
        several: the stream has more choices than one, so usage says nothing of the first.
    """

    def __init__(self, dialect: Dialect, budget: int | None = None) -> None:
        self.ids: list[int] = []
        self.answer_ids = 0
        self.several = False
        self._dialect = dialect
        self._budget = budget
        self._usage: Chunk = {}
        self._reported: int | None = None
        self._drawn: int | None = None
        self._waiting: list[int] = []
        self._aside = 0
        self._last = 0

    @property
    def known(self) -> int:
        """Thinking tokens so far by the engine's word or by ids; 0 where neither says."""
        return (self._drawn if self._reported is None else self._reported) or 0

    @property
    def totals(self) -> tuple[int | None, int | None]:
        """Tokens of the prompt, and of thought and answer; None where the engine's numbers cannot be right.

        Raises BackendError where its last ones are no numbers.
        """
        with MappedErrors():
            prompt, both = _totals(self._usage)
        return prompt, None if self.several else both

    @property
    def thought_ids(self) -> int:
        """Ids drawn for the thought, or that may have been."""
        return len(self.ids) + len(self._waiting)

    def take_ids(self, ids: Any, thinking: bool, waiting: bool) -> None:
        """Token ids belong to the thought where their chunk brought a piece of it; some wait, as their text does."""
        self._waiting += token_ids(ids)
        if waiting and not thinking:
            return
        if thinking:
            self.ids += self._waiting
            self._last = len(self._waiting)
        else:
            self.answer_ids += len(self._waiting)
        self._waiting = []

    def take(self, chunk: Chunk, thinking: bool, cued: bool) -> None:
        """Take the engine's count of thinking tokens, and count what was drawn while it was thinking.

        Args:
            cued: it says, or may say, the closing cue, whose tokens are not thought.

        Raises TypeError, AttributeError where a count is no number.
        """
        if usage := chunk.get("usage"):
            self._usage = expect_type(dict, usage)  # many engines send it with every chunk: it is read once
        if self.several:
            self._reported, self._drawn = None, len(self.ids) or None
            return
        drawn, counted = self._dialect.generated(chunk), self._dialect.thought(chunk)
        if counted is not None:
            self._reported = None if drawn is not None and counted > drawn else counted
        if cued and drawn is not None:
            if thinking and self._budget is not None:  # the last tokens before the cue, and the first ones of it
                self._drawn = max(self._drawn or 0, min(drawn, self._budget))
            self._aside = drawn - (self._drawn or 0)
        elif thinking:  # then all tokens drawn so far are thinking tokens
            # An engine that counts thoughts by itself has missed this one where it is in need of another count.
            others = 0 if drawn is None or counted is not None else drawn - self._aside
            self._drawn = len(self.ids) or others or self._drawn

    def settled(self, tally: Tally, leaked: bool) -> Count:
        """The count to report for a thought. Where part of it `leaked` into the answer, drawn tokens say nothing."""
        certain = len(self.ids) - self._last - SLACK  # the last ids of a thought may lie behind its end
        return settle(tally, self._reported, None if leaked else self._drawn, certain, self.totals[1])


def _totals(usage: Chunk) -> tuple[int | None, int | None]:
    """Tokens of the prompt, and those drawn; None where the numbers cannot be right. Raises TypeError if none."""
    given = [usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    prompt, drawn, both = found = [valid_count(number) for number in given]
    if found != given or (both is not None and both < (prompt or 0) + (drawn or 0)):
        return None, None
    return prompt, drawn
