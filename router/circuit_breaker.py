"""A circuit breaker: leaves a dependency out after a few failures in a row, longer each time, then tries it again."""

import time
from collections.abc import Callable

FAILURES = 3
"""Failures in a row after which a dependency is left out."""


class Breaker:
    """Counts failures of one dependency.

    Args:
        away: seconds that it is left out at first; doubled each time it fails again.
        longest: upper bound of these seconds.
        most: failures in a row before it is left out.
    """

    def __init__(
        self, away: float, longest: float, clock: Callable[[], float] = time.monotonic, most: int = FAILURES
    ) -> None:
        self._away = away
        self._longest = longest
        self._clock = clock
        self._most = most
        self._failures = 0
        self._until = 0.0
        self._trial = 0.0

    @property
    def failures(self) -> int:
        """Failures in a row so far."""
        return self._failures

    @property
    def is_open(self) -> bool:
        """True while the dependency is left out."""
        return self._failures >= self._most and self._clock() < self._until

    def allows(self) -> bool:
        """True if a call may go out now; after the time away only one may, as a trial."""
        return self._failures < self._most or self._clock() >= max(self._until, self._trial)

    def started(self) -> None:
        """Note that a call goes out; while it is a trial, no other may."""
        if self._failures >= self._most:
            # The trial ends by itself, in case its caller never reports how it went.
            self._trial = self._clock() + self._away

    def succeeded(self) -> None:
        """Note that a call succeeded: the dependency is used again."""
        self._failures, self._trial = 0, 0.0

    def failed(self) -> None:
        """Count a failure; calls that were under way when the dependency was left out do not count again."""
        now = self._clock()
        if now < self._until:  # they say nothing new, and would double the time away once for each call
            return
        self._failures += 1
        if self._failures >= self._most:
            self._until = now + min(self._away * 2.0 ** (self._failures - self._most), self._longest)

    def trip(self) -> None:
        """Leave the dependency out from now on, for its first time away."""
        self._failures = max(self._failures, self._most)
        self._until = self._clock() + self._away
