"""Records that wait, within a bound that their owners share: one that has more than its share loses records first."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairBuffer(Generic[T]):
    """Records in the order of their arrival, whose weights sum up to at most `most`.

    Args:
        owner: the owner of a record.
        weigh: the weight of a record.
    """

    def __init__(self, most: int, owner: Callable[[T], Hashable], weigh: Callable[[T], int]) -> None:
        self._most = most
        self._owner = owner
        self._weigh = weigh
        self._records: list[T] = []
        self._held: Counter[Hashable] = Counter()
        """Weight of the records of each owner."""

        self._weight = 0

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: T) -> int:
        """Append a record; returns how many are lost, which may be this one."""
        weight, owner = self._weigh(record), self._owner(record)
        before = len(self._records)
        # An owner within its share takes the room of the largest one, whose oldest records go.
        share = self._most // len(self._held.keys() | {owner}) if self._weight + weight > self._most else self._most
        if self._held[owner] + weight > share:
            return 1
        while self._weight + weight > self._most:
            self._drop_oldest_of(max(self._held, key=self._held.__getitem__))
        self._append(record, owner, weight)
        return before + 1 - len(self._records)

    def take(self) -> list[T]:
        """Remove and return all records."""
        taken, self._records = self._records, []
        self._held.clear()
        self._weight = 0
        return taken

    def put_back(self, taken: list[T]) -> int:
        """Put records in front of what has arrived since; returns how many are lost, of each owner the oldest first."""
        every = [(record, self._owner(record), self._weigh(record)) for record in taken + self.take()]
        held: Counter[Hashable] = Counter()
        for _, owner, weight in every:
            held[owner] += weight
        most, kept = _level(held.values(), self._most), []
        for one in every:
            _, owner, weight = one
            if held[owner] <= most:
                kept.append(one)
            else:
                held[owner] -= weight
        for one in kept:
            self._append(*one)
        return len(every) - len(kept)

    def _append(self, record: T, owner: Hashable, weight: int) -> None:
        self._records.append(record)
        self._held[owner] += weight
        self._weight += weight

    def _drop_oldest_of(self, owner: Hashable) -> None:
        index = next(i for i, record in enumerate(self._records) if self._owner(record) == owner)
        weight = self._weigh(self._records.pop(index))
        self._weight -= weight
        self._held[owner] -= weight
        if not self._held[owner]:
            del self._held[owner]


def _level(weights: Collection[int], most: int) -> int:
    """The largest weight for each owner with which all of them stay within `most`: small owners keep everything."""
    left, owners = most, len(weights)
    for weight in sorted(weights):
        if weight * owners > left:
            return left // owners
        left -= weight
        owners -= 1
    return most
