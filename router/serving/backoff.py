"""Pauses before something that ended is started again."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class Backoff:
    """Pauses that double from `first` to `longest` seconds.

    They start again from `first` after a time of work that was longer than the longest pause.
    """

    def __init__(self, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> None:
        self._first = self._next = first
        self._longest = longest

    def worked(self, seconds: float) -> None:
        """Take note of how long it worked until it ended."""
        if seconds > self._longest:  # it failed for another reason than before
            self._next = self._first

    def pause(self) -> float:
        """Seconds to wait now; the next pause is twice as long."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause
