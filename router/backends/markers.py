"""Markers around a thought, and what engines leave of them in the content of an answer.

Servers without a parser of thoughts send `<think>...</think>` as content; others miss the start that a template wrote,
and send the thought and its end marker as content. Only the start of an answer is looked at: a marker further on is
text, such as code about markers. Decisions depend on the text alone, never on how it was cut into deltas.
"""

from collections.abc import Callable
from dataclasses import dataclass

from router.backends.text import BLANK
from router.domain import ContentDelta, ReasoningDelta

QUOTES = "`'\"("
"""A marker directly behind one of these is quoted."""


@dataclass(frozen=True, slots=True)
class Markers:
    """The texts around a thought.

    Attributes:
        cue: said at the end of a thought that is cut, before the end marker; "" = nothing, None = the dialect's own.
        answer: opens the answer behind the end marker, where the model does not answer without it.
    """

    start: str = "<think>"
    end: str = "</think>"
    cue: str | None = None
    answer: str = ""


Said = list[ReasoningDelta | ContentDelta]


class AnswerReader:
    """Splits the content of a stream into thought and answer.

    An answer begins with its first visible character; blank text before it waits, and is dropped where nothing follows.

    Args:
        hold: characters that wait for an end marker where a thought was expected and did not come; 0 = nothing waits.

    Attributes:
        hold: set it to 0 once the engine has sent a thought as such.
        leaked: characters of a thought that had been passed on as content before its end marker came.
        answered: something visible was passed on as content.
    """

    def __init__(self, markers: Markers, hold: int = 0) -> None:
        self.hold = hold
        self.leaked = 0
        self.answered = False
        self._markers = markers
        self._step: Callable[[Said], bool] = self._open
        self._blank: list[str] = []
        self._waiting = ""
        self._watching = bool(markers.end)
        self._passed, self._tail = 0, ""

    @property
    def waiting(self) -> bool:
        """Visible text is held back."""
        return bool(self._waiting)

    def read(self, text: str) -> Said:
        """The events that a piece of content makes certain."""
        if self.answered:
            self._watch(text)
            return [ContentDelta(text)]
        said: Said = []
        self._waiting += text
        while self._step(said):
            pass
        return said

    def rest(self) -> Said:
        """What was held back; blank text alone is dropped."""
        waiting, self._waiting = self._waiting, ""
        if not waiting:
            return []
        if self._step == self._thought:
            return [ReasoningDelta(waiting)]
        return self._answer(waiting)

    def trust(self) -> None:
        """The engine sends thoughts as such: from now on a marker in the middle of its content is text."""
        self.hold, self._watching = 0, False

    def _open(self, said: Said) -> bool:
        """Before anything visible: a marker here is a marker."""
        body = self._waiting.lstrip(BLANK)
        if len(body) < len(self._waiting):
            self._blank.append(self._waiting[: len(self._waiting) - len(body)])
            self._waiting = body
        start, end = self._markers.start, self._markers.end
        if start and body.startswith(start):
            self._go(self._thought, body[len(start) :])
        elif end and body.startswith(end):  # its thought was empty, or was sent as such
            self._go(self._open, body[len(end) :])
        elif start.startswith(body) or end.startswith(body):
            return False  # nothing visible yet, or a marker that is not complete
        elif self.hold and end:
            self._step = self._held
        else:
            said += self._answer(self._take())
            return False
        return True

    def _thought(self, said: Said) -> bool:
        """Within a thought that a marker has opened."""
        thought, ended, rest = self._waiting.partition(self._markers.end)
        if ended:
            self._go(self._open, rest)
        else:
            keep = overlap(thought, self._markers.end)
            thought, self._waiting = thought[: len(thought) - keep], thought[len(thought) - keep :]
        if thought:
            said.append(ReasoningDelta(thought))
        return bool(ended)

    def _held(self, said: Said) -> bool:
        """Within text that is a thought if an end marker follows soon."""
        text, end = self._waiting, self._markers.end
        at, quotes = self._ends(text), self._quotes(text)
        if 0 <= at <= self.hold and not 0 <= quotes < at:
            thought = "".join((*self._blank, text[:at]))
            said.append(ReasoningDelta(thought))
            self._go(self._open, text[at + len(end) :])
            return True
        if quotes >= 0 or at >= 0 or len(text) >= self.hold + len(end):
            said += self._answer(self._take())
        return False

    def _go(self, step: Callable[[Said], bool], waiting: str) -> None:
        self._step, self._waiting = step, waiting
        self._blank.clear()
        self.trust()

    def _take(self) -> str:
        text, self._waiting = self._waiting, ""
        return text

    def _answer(self, text: str) -> Said:
        self.answered = True
        text = "".join((*self._blank, text))
        self._watch(text)
        return [ContentDelta(text)]

    def _watch(self, text: str) -> None:
        """Look for an end marker behind what was passed on: then that was a thought, which cannot be taken back."""
        if not self._watching:
            return
        window = self._tail + text
        # What stands first is there to tell quotes: a marker that begins there was looked at when it was complete.
        at, quotes = self._ends(window, 1), self._quotes(window)
        if at > 0 and not 0 <= quotes < at:
            self._watching = False
            self.leaked = self._passed - len(self._tail) + at
        elif quotes >= 0:
            self._watching = False
        self._passed += len(text)
        self._tail = window[-len(self._markers.end) :]  # the longest beginning of a marker, and what stands before it

    def _quotes(self, text: str) -> int:
        """Where the text speaks of a start marker; -1 where it does not."""
        return text.find(self._markers.start) if self._markers.start else -1

    def _ends(self, text: str, first: int = 0) -> int:
        """Where the first end marker stands, from `first` on, that is not quoted; -1 where none does."""
        at = text.find(self._markers.end, first)
        while at >= 0 and text[at - 1 : at] and text[at - 1] in QUOTES:
            at = text.find(self._markers.end, at + 1)
        return at


def overlap(text: str, marker: str) -> int:
    """How many characters at the end of the text may be the beginning of a marker.

    >>> overlap("so </thi", "</think>")
    5
    """
    longest = min(len(marker) - 1, len(text))
    if marker[:1] not in text[len(text) - longest :]:
        return 0
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)


class CueReader:
    """Takes the closing cue out of a thought, where the engine says it.

    Args:
        cue: None or "" = there is none.

    Attributes:
        said: the cue was there: the thought was cut.
        begun: the cue was said, or may have begun, and no thought has followed: the tokens are no thought.
    """

    def __init__(self, cue: str | None) -> None:
        self.said = self.begun = False
        self._cue = f"\n{cue}" if cue else ""
        self._waiting = ""

    def read(self, text: str) -> str:
        """The thought without the cue, and without the line breaks around it."""
        if not self._cue:
            return text
        if self.said:
            return self._behind(text)
        before, said, behind = (self._waiting + text).partition(self._cue)
        if said:
            self.said, self.begun, self._waiting = True, True, ""
            return before + self._behind(behind)
        keep = overlap(before, self._cue)
        self._waiting, self.begun = before[len(before) - keep :], keep > 0
        return before[: len(before) - keep]

    def rest(self) -> str:
        """What was held back and was no cue."""
        text, self._waiting = self._waiting, ""
        return text

    def _behind(self, text: str) -> str:
        """An engine may let the model think on, or again."""
        if self.begun:
            text = text.lstrip()
            self.begun = not text
        return text
