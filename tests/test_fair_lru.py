"""A bounded mapping that keeps what was used, within its bound, and fairly between owners."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router.fair_lru import FairLru

MOST = 12
OWNERS = "abc"
keys = st.tuples(st.sampled_from(OWNERS), st.integers(0, 9))


def owner(key: tuple[str, int]) -> str:
    return key[0]


class Model(RuleBasedStateMachine):
    """Beside the mapping the order of use; an entry's weight is its value."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping: FairLru[tuple[str, int], int] = FairLru(MOST, owner, weigh=lambda value: value)
        self.used: dict[tuple[str, int], int] = {}

    @rule(key=keys, value=st.integers(0, MOST + 1))
    def write(self, key: tuple[str, int], value: int) -> None:
        before = dict(self.mapping)
        self.mapping[key] = value
        self.used.pop(key, None)
        self.used[key] = value
        assert (key in self.mapping) <= (value <= MOST)
        lost = before.keys() - dict(self.mapping).keys() - {key}
        owners = len({owner(one) for one in before} | {owner(key)})
        held = Counter[str]()
        for one, weight in before.items():
            held[owner(one)] += weight
        # An owner that loses an entry to another held more than its share.
        assert all(held[owner(one)] * owners > MOST for one in lost if owner(one) != owner(key))
        for one in lost:  # the entries that an owner loses are those it has not used for longest
            order = [other for other in self.used if other in before and owner(other) == owner(one)]
            assert {other for other in order[: order.index(one)] if other != key}.isdisjoint(self.mapping)

    @rule(key=keys)
    def read(self, key: tuple[str, int]) -> None:
        found = self.mapping.get(key)
        if found is not None:
            assert found == self.used[key] == self.mapping[key]
            self.used[key] = self.used.pop(key)

    @rule(key=keys)
    def delete(self, key: tuple[str, int]) -> None:
        self.mapping.pop(key, None)
        assert key not in self.mapping

    @rule()
    def clear(self) -> None:
        self.mapping.clear()
        assert not self.mapping and not list(self.mapping)

    @invariant()
    def within_its_bound(self) -> None:
        assert self.mapping.weight == sum(dict(self.mapping).values()) <= MOST
        assert len(self.mapping) == len(list(self.mapping))


TestModel = Model.TestCase


@given(st.lists(keys, max_size=200))
def test_an_owner_within_its_share_loses_nothing(flood: list[tuple[str, int]]) -> None:
    mapping: FairLru[tuple[str, int], str] = FairLru(MOST, owner)
    mine = [("quiet", i) for i in range(MOST // (len(OWNERS) + 1))]
    for key in mine:
        mapping[key] = "kept"
    for key in flood:
        mapping[key] = "flood"
    assert all(key in mapping for key in mine)


def test_one_owner_alone_fills_it() -> None:
    mapping: FairLru[tuple[str, int], int] = FairLru(3, owner)
    for number in range(5):
        mapping["a", number] = number
    assert list(mapping.values()) == [2, 3, 4]
    with pytest.raises(KeyError):
        mapping["a", 0]
    with pytest.raises(KeyError):
        mapping["nobody", 0]
    assert mapping.get(("nobody", 0), "default") == "default"
