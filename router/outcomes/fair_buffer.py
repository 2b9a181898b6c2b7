"""Records that wait within a bound, which their owners share: an owner above its share loses its oldest first."""

from collections.abc import Callable, Hashable
from itertools import count
from operator import itemgetter
from typing import Generic, TypeVar

from router.fair_lru import FairLru

T = TypeVar("T")


class FairBuffer(Generic[T]):
    """Records in the order of their arrival, whose weights sum up to at most `most`.

    Args:
        owner: the owner of a record.
        weigh: the weight of a record, which is asked for once.
    """

    def __init__(self, most: int, owner: Callable[[T], Hashable], weigh: Callable[[T], int]) -> None:
        self._owner = owner
        self._weigh = weigh
        self._numbers = count()
        # By owner and number: number, weight and record. Nobody looks at an entry before it leaves, so the least
        # recently used one of an owner is its oldest.
        self._kept: FairLru[tuple[Hashable, int], tuple[int, int, T]] = FairLru(most, itemgetter(0), itemgetter(1))

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, record: T) -> int:
        """Append a record; returns how many are lost, which may be this one."""
        kept, number = self._kept, next(self._numbers)
        after = len(kept) + 1
        kept[self._owner(record), number] = number, self._weigh(record), record
        return after - len(kept)

    def take(self) -> list[T]:
        """Remove and return all records."""
        return [record for _, _, record in sorted(self._kept.take(), key=itemgetter(0))]
