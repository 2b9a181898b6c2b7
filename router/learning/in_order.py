"""Passes results on in the order in which their work began.

Long thoughts take longer to serve and to cut, and lose more. Were evidence written as it is finished, what loses little
would come first, and a test that looks at it continuously would see the rest too late.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Place(Generic[T]):
    """The place of one result; `result` is None where there was none."""

    ended: bool = False
    result: T | None = None


class InOrder(Generic[T]):
    """A line of places.

    Args:
        pass_on: called with each result once all before it have ended.
    """

    def __init__(self, pass_on: Callable[[T], None]) -> None:
        self._pass_on = pass_on
        self._line: deque[Place[T]] = deque()

    def __len__(self) -> int:
        """Places whose results were not passed on yet."""
        return len(self._line)

    def begin(self) -> Place[T]:
        """A place behind all others."""
        place = Place[T]()
        self._line.append(place)
        return place

    def end(self, place: Place[T], result: T | None = None) -> None:
        """What became of a place."""
        place.ended, place.result = True, result
        while self._line and self._line[0].ended:
            if (first := self._line.popleft().result) is not None:
                self._pass_on(first)
