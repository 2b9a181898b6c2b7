"""Passes results on in the order in which their work began.

Long thoughts take longer to serve and to cut, and lose more. Were evidence written as it is finished, what loses little
would come first, and a test that looks at it continuously would see the rest too late.

What takes too long does not hold up the others: its worst result is passed on in its place, and replaced in the end.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Place(Generic[T]):
    """The place of one result; `result` is None where there was none.

    Attributes:
        began: time by the clock of the line.
        worst: what is passed on where it takes too long; None = nothing.
        passed: it has left the line.
    """

    began: float
    worst: Callable[[], T | None] | None = None
    ended: bool = False
    passed: bool = False
    result: T | None = None


class InOrder(Generic[T]):
    """A line of places.

    Args:
        pass_on: called with each result once all before it have ended, or have taken too long.
        patience: seconds that a place may take; looked at whenever another one begins or ends.
    """

    def __init__(
        self, pass_on: Callable[[T], None], patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pass_on = pass_on
        self._patience = patience
        self._clock = clock
        self._line: deque[Place[T]] = deque()

    def __len__(self) -> int:
        """Places whose results were not passed on yet."""
        return len(self._line)

    def begin(self) -> Place[T]:
        """A place behind all others."""
        place = Place[T](self._clock())
        self._line.append(place)
        self._advance()
        return place

    def end(self, place: Place[T], result: T | None = None) -> None:
        """What became of a place."""
        place.ended, place.result = True, result
        if place.passed and result is not None:
            self._pass_on(result)
        self._advance()

    def _advance(self) -> None:
        late = self._clock() - self._patience
        while self._line and (self._line[0].ended or self._line[0].began < late):
            first = self._line.popleft()
            first.passed = True
            result = first.result if first.ended or first.worst is None else first.worst()
            if result is not None:
                self._pass_on(result)
