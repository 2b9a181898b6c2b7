"""Leaves out what failed a few times in a row, for longer each time, then tries it again."""

import time
from collections.abc import Callable

FAILURES = 3
"""In a row; after these it is left out."""


class Breaker:
    """Counts failures of one dependency.

    Args:
        away: seconds that it is left out at first; doubled each time it fails again.
        longest: the most seconds.
    """

    def __init__(self, away: float, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._away = away
        self._longest = longest
        self._clock = clock
        self._failures = 0
        self._until = 0.0
        self._trial = 0.0

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    @property
    def is_open(self) -> bool:
        """It is left out now."""
        return self._failures >= FAILURES and self._clock() < self._until

    def allows(self) -> bool:
        """May it be asked now? After its time away by one caller at a time."""
        return self._failures < FAILURES or self._clock() >= max(self._until, self._trial)

    def started(self) -> None:
        """It is asked; while it is on trial nobody else may."""
        if self._failures >= FAILURES:
            self._trial = self._clock() + self._away

    def succeeded(self) -> None:
        """It works."""
        self._failures, self._trial = 0, 0.0

    def failed(self) -> None:
        """Count a failure; those that were under way when it was left out do not count again."""
        now = self._clock()
        if now < self._until:
            return
        self._failures += 1
        if self._failures >= FAILURES:
            self._until = now + min(self._away * 2.0 ** (self._failures - FAILURES), self._longest)

    def trip(self) -> None:
        """Leave it out now."""
        self._failures = max(self._failures, FAILURES)
        self._until = self._clock() + self._away
