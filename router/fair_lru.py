"""A bounded mapping that keeps what was used most recently, fairly between owners.

The room is shared: one owner alone may fill it. When it is full, an owner with more than its share loses entries first,
so no owner can drive out the entries of others by a flood of its own.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(eq=False, slots=True)
class _Held(Generic[K, V]):
    """An owner's entries, the least recently used first, and the sum of their weights."""

    entries: OrderedDict[K, V] = field(default_factory=OrderedDict)
    weight: int = 0


class FairLru(MutableMapping[K, V]):
    """Entries whose weights sum up to at most `most`; an owner within `most` / owners loses none to others.

    Args:
        owner: the owner of a key.
        weigh: the weight of a value; 1 by default.
    """

    def __init__(self, most: int, owner: Callable[[K], Hashable], weigh: Callable[[V], int] = lambda value: 1) -> None:
        self._most = most
        self._owner = owner
        self._weigh = weigh
        self._held: dict[Hashable, _Held[K, V]] = {}
        self._largest: _Held[K, V] = _Held()
        """The owner who last was the largest. While it holds more than its share, no larger one is looked for."""

        self._size = 0
        self.weight = 0
        """Sum of the weights of all entries."""

    def __getitem__(self, key: K) -> V:
        entries = self._held[self._owner(key)].entries
        entries.move_to_end(key)
        return entries[key]

    def get(self, key: K, default: Any = None) -> Any:
        """As `dict.get`; it is used now. Without an error for a miss, which is as frequent as a hit."""
        held = self._held.get(self._owner(key))
        if held is None or key not in held.entries:
            return default
        held.entries.move_to_end(key)
        return held.entries[key]

    def __setitem__(self, key: K, value: V) -> None:
        weight, owner = self._weigh(value), self._owner(key)
        if weight > self._most:  # it would drive out all others, and not stay either
            self.pop(key, None)
            return
        held = self._held.get(owner)
        if held is None:
            held = self._held[owner] = _Held()
        if key in held.entries:
            self._subtract(held, held.entries.pop(key))
        held.entries[key] = value
        held.weight += weight
        self.weight += weight
        self._size += 1
        while self.weight > self._most:
            self._evict(held)

    def __delitem__(self, key: K) -> None:
        owner = self._owner(key)
        held = self._held[owner]
        self._subtract(held, held.entries.pop(key))
        if not held.entries:
            del self._held[owner]

    def clear(self) -> None:
        """Drop all entries."""
        self._held.clear()
        self._largest = _Held()
        self._size = self.weight = 0

    def take(self) -> list[V]:
        """Remove and return the values of all entries, owner by owner."""
        taken = [value for held in self._held.values() for value in held.entries.values()]
        self.clear()
        return taken

    def __contains__(self, key: object) -> bool:
        held = self._held.get(self._owner(key))  # type: ignore[arg-type]
        return held is not None and key in held.entries

    def __iter__(self) -> Iterator[K]:
        return iter([key for held in self._held.values() for key in held.entries])  # a look at a value moves its key

    def __len__(self) -> int:
        return self._size

    def _evict(self, newest: _Held[K, V]) -> None:
        """Drop an entry of an owner above its share: the one that has just written, else the largest."""
        held = newest if self._above_share(newest) else self._largest
        if not self._above_share(held):
            held = self._largest = max(self._held.values(), key=lambda one: one.weight)
        del self[next(iter(held.entries))]

    def _above_share(self, held: _Held[K, V]) -> bool:
        return held.weight * len(self._held) > self._most

    def _subtract(self, held: _Held[K, V], value: V) -> None:
        weight = self._weigh(value)
        held.weight -= weight
        self.weight -= weight
        self._size -= 1
