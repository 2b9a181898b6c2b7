"""A thought in the making, read token by token up to its end marker, which may be several tokens."""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from router.backends.completions import Piece
from router.backends.counting import Count
from router.backends.endings import ending
from router.backends.limits import MAX_STREAM_TOKENS, Gate
from router.backends.markers import overlap
from router.backends.text import SurrogateJoiner
from router.backends.token_ids import find_ids
from router.domain import FinishReason
from router.errors import BackendError

ENDED = (FinishReason.NATURAL, FinishReason.TRUNCATED)
"""Endings behind which an answer can be had in a second phase."""


@dataclass(slots=True)
class Thought:
    """A thought in the making.

    Attributes:
        prompt: token ids before the thought.
        ids: token ids of the thought, without its end marker.
        used: tokens that the engine drew for it; more than `ids` where a thought went past its budget and was cut.
        natural: the thought ended by itself.
        failed: the engine gave up in the middle: how; None = it did not.
        count: what is known of the count beside `used`, where a chat stream brought the thought.
        given: the caller gave the thought, so it is part of the prompt, and nothing follows it but its end marker.
    """

    prompt: list[int]
    ids: list[int]
    used: int = 0
    natural: bool = False
    failed: FinishReason | None = None
    count: Count | None = None
    given: bool = False

    def upto(self, budget: int | None, marker: int) -> "Thought":
        """The thought as a smaller budget would have had it: its first ids are the same.

        Args:
            budget: tokens; None = no limit.
            marker: tokens of the end marker, which must come within the budget for a thought to end by itself.
        """
        if self.given or budget is None or len(self.ids) + marker <= budget:
            return self
        ids = self.ids[:budget]
        return Thought(self.prompt, ids, len(ids), failed=None if len(ids) < len(self.ids) else self.failed)


class ThoughtReader:
    """Reads one completion of a thought into `thought`.

    The end marker is found by its ids. Where it is several tokens, another tokenisation may spell it, so it is found in
    the text, too, as the engines' own parsers do, and the thought is cut before the first token that has part of it.

    Args:
        limit: tokens that this completion may have, at most MAX_STREAM_TOKENS; None = those.
        end: ids of the end marker.
        marker: its text.

    Attributes:
        ended: the end marker came, or the engine ended the text.
        text: pieces of the text.
        torn: the ids of a piece of several tokens in which the text of the marker begins, and the text of the piece
            before it; only a tokenizer knows which of these ids come before the marker.
    """

    def __init__(self, thought: Thought, limit: int | None, end: list[int], marker: str) -> None:
        self.ended = False
        self.text: list[str] = []
        self.torn: tuple[list[int], str] | None = None
        self._thought = thought
        self._first = len(thought.ids)
        self._limit = MAX_STREAM_TOKENS if limit is None else min(limit, MAX_STREAM_TOKENS)
        self._gate = Gate(self._limit)
        self._end = end
        self._marker = marker
        self._joiner = SurrogateJoiner()
        self._waiting = ""
        self._length = 0
        # Of the last pieces: where each begins in the text and in the ids, and its text.
        self._starts: deque[tuple[int, int, str]] = deque(maxlen=2 * len(marker) + 1)
        self._finish: FinishReason | None = None

    @property
    def over(self) -> bool:
        """The completion is over: the rest of it is not read."""
        return self.ended or self.full

    @property
    def full(self) -> bool:
        """It has all the tokens that it may have. An engine that sends no ids is stopped by its text."""
        return self._gate.full or len(self._thought.ids) - self._first >= self._limit

    def read(self, pieces: list[Piece]) -> str:
        """The text of the thought that some pieces make certain."""
        said = "".join(self._piece(piece) for piece in pieces if not self.ended)
        del self._thought.ids[self._first + self._limit :]
        return self._said(said)

    def close(self) -> str:
        """The end of the completion: the text held back. Raises BackendError where the stream had no end."""
        if self._finish is None and not self.over:
            raise BackendError("backend: the stream ended early")
        if self._finish not in (None, *ENDED):
            self._thought.failed = self._finish
        if self.ended:
            return ""
        held, self._waiting = self._waiting + self._joiner.rest(), ""
        if held and len(self._end) > 1 and self._marker.startswith(held):  # the limit has cut the marker itself
            self._cut(self._length - len(held))
            held = ""
        return self._said(held)

    def _said(self, text: str) -> str:
        if text:
            self.text.append(text)
        return text

    def _piece(self, piece: Piece) -> str:
        if piece.finish is not None:
            self._finish = ending(piece.finish)
        text = self._joiner.join(self._gate.through(piece.text)) if piece.text else ""
        self._starts.append((self._length, len(self._thought.ids), text))
        self._length += len(text)
        self._thought.ids += piece.ids
        if (at := self._marked(len(piece.ids))) is not None:
            del self._thought.ids[at:]
            self.ended = True
            return (self._waiting + text).partition(self._marker)[0]  # a piece may hold the marker and more behind it
        if piece.ids and len(self._end) == 1:  # only the token ends the thought: its text may be quoted
            said = self._waiting + text
            self._waiting = ""
        else:
            said = self._before_marker(text)
        self.ended = self.ended or self._finish is FinishReason.NATURAL
        return said

    def _marked(self, new: int) -> int | None:
        """Where the marker begins in the ids, of which `new` have just come."""
        ids, end = self._thought.ids, self._end
        return find_ids(ids, end, max(self._first, len(ids) - new - len(end) + 1))

    def _before_marker(self, text: str) -> str:
        before, marked, _ = (self._waiting + text).partition(self._marker)
        if marked:
            self._cut(self._length - len(self._waiting) - len(text) + len(before))
            self.ended, self._waiting = True, ""
            return before
        keep = overlap(before, self._marker)
        self._waiting = before[len(before) - keep :]
        return before[: len(before) - keep]

    def _cut(self, position: int) -> None:
        """Drop the ids from the first piece on that has text behind a position."""
        ids = self._thought.ids
        for (start, first, text), (end, last, _) in pairwise([*self._starts, (self._length, len(ids), "")]):
            if end > position:
                if last - first > 1 and position > start:
                    self.torn = ids[first:last], text[: position - start]
                del ids[first:]
                return
