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
    buffer, lost, taken = buffer_of(), 0, list[Record]()
    for record in given:
        lost += buffer.add(record)
        if data.draw(st.integers(0, 9)) == 0:
            taken = buffer.take()
            lost += buffer.put_back(taken)
    size = len(buffer)
    kept = buffer.take()
    assert size == len(kept) and len(buffer) == 0
    assert kept == sorted(kept, key=lambda record: record[1])
    assert weight(kept) <= MOST and lost == len(given) - len(kept)


@given(records, records)
def test_what_is_put_back_comes_first(before: list[Record], since: list[Record]) -> None:
    buffer = buffer_of()
    for record in before:
        buffer.add(record)
    taken = buffer.take()
    for owner, number, size in since:
        buffer.add((owner, number + len(before), size))
    arrived = buffer.take()
    for record in arrived:
        buffer.add(record)
    lost = buffer.put_back(taken)
    kept = buffer.take()
    assert lost == len(taken + arrived) - len(kept)
    assert kept == sorted(kept, key=lambda record: record[1])
    assert weight(kept) <= MOST
    for owner in "abc":  # of each owner the oldest are lost
        mine = [record for record in taken + arrived if record[0] == owner]
        still = [record for record in kept if record[0] == owner]
        assert still == mine[len(mine) - len(still) :]


@given(st.lists(st.sampled_from("abc"), max_size=200))
def test_an_owner_within_its_share_loses_nothing(flood: list[str]) -> None:
    buffer = buffer_of()
    mine = [("quiet", number, 1) for number in range(3)]
    for record in mine:
        buffer.add(record)
    for number, owner in enumerate(flood):
        buffer.add((owner, 10 + number, 1))
    taken = buffer.take()
    assert [record for record in taken if record[0] == "quiet"] == mine
    for number, owner in enumerate(flood):
        buffer.add((owner, 1_000 + number, 1))
    buffer.put_back(taken)
    assert [record for record in buffer.take() if record[0] == "quiet"] == mine


def test_a_flood_that_has_filled_it_makes_room_for_others() -> None:
    buffer = buffer_of()
    assert sum(buffer.add(("flood", number, 1)) for number in range(20)) == 8
    assert [buffer.add(("quiet", 100 + number, 1)) for number in range(8)] == [1] * 8
    kept = buffer.take()
    assert [record[0] for record in kept] == ["flood"] * (MOST // 2) + ["quiet"] * (MOST // 2)
