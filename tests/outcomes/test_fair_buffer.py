"""What waits is bounded, in order, and no owner loses records to the flood of another."""

from hypothesis import given
from hypothesis import strategies as st

from router.outcomes.fair_buffer import FairBuffer

MOST = 12
Record = tuple[str, int, int]
"""Owner, number and weight."""

records = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), max_size=60).map(
    lambda drawn: [(owner, number, weight) for number, (owner, weight) in enumerate(drawn)]
)


def buffer_of() -> FairBuffer[Record]:
    return FairBuffer(MOST, owner=lambda record: record[0], weigh=lambda record: record[2])


def weight(kept: list[Record], owner: str = "abc") -> int:
    return sum(record[2] for record in kept if record[0] in owner)


@given(records, st.data())
def test_it_keeps_within_its_bound_in_order_and_counts_what_is_lost(given: list[Record], data: st.DataObject) -> None:
    buffer, lost, kept = buffer_of(), 0, list[Record]()
    for record in given:
        lost += buffer.add(record)
        if data.draw(st.integers(0, 9)) == 0:
            kept += buffer.take()
    size = len(buffer)
    last = buffer.take()
    assert size == len(last) and len(buffer) == 0 and weight(last) <= MOST
    assert kept + last == sorted(kept + last, key=lambda record: record[1])
    assert lost == len(given) - len(kept + last)


@given(records)
def test_of_each_owner_the_oldest_are_lost(given: list[Record]) -> None:
    buffer = buffer_of()
    for record in given:
        buffer.add(record)
    kept = buffer.take()
    for owner in "abc":
        mine, still = ([record for record in some if record[0] == owner] for some in (given, kept))
        # One that exceeds its owner's share is lost itself, and then all of its owner's are.
        assert still == mine[len(mine) - len(still) :]


def test_a_record_is_weighed_once_and_one_beyond_the_bound_costs_itself_alone() -> None:
    weighed: list[int] = []

    def weigh(record: int) -> int:
        weighed.append(record)
        return record

    buffer = FairBuffer(MOST, lambda record: None, weigh)
    assert [buffer.add(record) for record in (1, 2, MOST + 1, 3, 7)] == [0, 0, 1, 0, 1]
    assert buffer.take() == [2, 3, 7]
    assert weighed == [1, 2, MOST + 1, 3, 7]


@given(st.lists(st.sampled_from("abc"), max_size=200))
def test_an_owner_within_its_share_loses_nothing(flood: list[str]) -> None:
    buffer = buffer_of()
    mine = [("quiet", number, 1) for number in range(3)]
    for record in mine:
        buffer.add(record)
    for number, owner in enumerate(flood):
        buffer.add((owner, 10 + number, 1))
    assert [record for record in buffer.take() if record[0] == "quiet"] == mine


def test_a_flood_that_has_filled_it_makes_room_for_others() -> None:
    buffer = buffer_of()
    assert sum(buffer.add(("flood", number, 1)) for number in range(20)) == 8
    assert [buffer.add(("quiet", 100 + number, 1)) for number in range(8)] == [1] * 8
    kept = buffer.take()
    assert [record[0] for record in kept] == ["flood"] * (MOST // 2) + ["quiet"] * (MOST // 2)
