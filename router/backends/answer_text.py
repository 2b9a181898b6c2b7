"""What of an answer is passed on: its text up to a stop string, and the log-probabilities of that text's tokens.

Engines look for stop strings in the thought as well, and would end it there. So they get none: the router looks for
them in the answer alone, wherever the borders of deltas lie, and hangs up where one has come.
"""

from collections.abc import Iterable

from router.backends.markers import Said, overlap
from router.backends.text import BLANK
from router.domain import (
    ContentDelta,
    GenerationEvent,
    GenerationRequest,
    Logprobs,
    ReasoningDelta,
    Sampling,
    TokenLogprob,
)


class StopReader:
    """Passes text up to the stop string that is complete first.

    The blank text before an answer is not looked at: models write a line break or two there, which would end an answer
    before its first word.

    Args:
        begun: the answer had begun before, so that blank text is part of it.

    Attributes:
        found: the stop string that has come; None = none has.
    """

    def __init__(self, stops: Iterable[str], *, begun: bool = False) -> None:
        self.found: str | None = None
        self._stops = tuple(stops)
        self._waiting = ""
        self._begun = begun

    def read(self, text: str) -> str:
        """The text that is certainly no part of a stop string."""
        if self.found is not None:
            return ""
        if not self._stops:
            return text
        blank = "" if self._begun else text[: len(text) - len(text.lstrip(BLANK))]
        return blank + self._looked_at(text[len(blank) :])

    def rest(self) -> str:
        """What was held back, and was no stop string."""
        held, self._waiting = self._waiting, ""
        return held

    def _looked_at(self, text: str) -> str:
        text = self._waiting + text
        self._begun = self._begun or bool(text)
        complete = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if complete:
            _, at, self.found = min(complete)
            self._waiting = ""
            return text[:at]
        keep = max(overlap(text, stop) for stop in self._stops)
        self._waiting = text[len(text) - keep :]
        return text[: len(text) - keep]


class AnswerText:
    """Reads what an `AnswerReader` has found to be the answer.

    Args:
        begun: as in StopReader.
    """

    def __init__(self, sampling: Sampling, *, begun: bool = False) -> None:
        self._stop = StopReader(sampling.stop, begun=begun)
        self._watches = bool(sampling.stop) or sampling.logprobs
        self._wanted, self._top = sampling.logprobs, sampling.top_logprobs
        self._waiting: list[TokenLogprob] = []
        self._passed: list[TokenLogprob] = []
        self._said = False

    @classmethod
    def of(cls, request: GenerationRequest) -> "AnswerText":
        """For the answer to a request."""
        return cls(request.sampling, begun=request.prompt.begun is not None)

    @property
    def stop(self) -> str | None:
        """The stop string that has come; None = none has."""
        return self._stop.found

    @property
    def stopped(self) -> bool:
        """A stop string has come: the answer is complete, and nothing further is passed on."""
        return self._stop.found is not None

    def take(self, tokens: Iterable[TokenLogprob]) -> None:
        """Tokens of the text that comes next. They wait as long as that does."""
        if self._wanted and not self.stopped:
            self._waiting += [TokenLogprob(one.token, one.logprob, one.top[: self._top]) for one in tokens]

    def read(self, said: Said) -> Said:
        """The events of an answer without what lies behind a stop string."""
        if not self._watches:
            return said
        return [event for one in said for event in self._read(one)]

    def rest(self) -> Said:
        """What was held back, and was no stop string."""
        return self._content(self._stop.rest())

    def logprobs(self) -> list[GenerationEvent]:
        """Those of the text that was passed on since they were last asked for, in one event."""
        passed, self._passed = self._passed, []
        return [Logprobs(tuple(passed))] if passed else []

    def _read(self, event: ReasoningDelta | ContentDelta) -> Said:
        if type(event) is ReasoningDelta:
            self._waiting.clear()  # they were those of a thought
            return [event]
        before = self.stopped
        said = self._content(self._stop.read(event.text))
        if self.stopped and not before:
            self._waiting.clear()
            # An answer that a stop string ends at once is an answer, and not one that is missing.
            return said or ([] if self._said else [ContentDelta("")])
        return said

    def _content(self, text: str) -> Said:
        if not text:
            return []
        self._said = True
        self._passed += self._waiting
        self._waiting.clear()
        return [ContentDelta(text)]
