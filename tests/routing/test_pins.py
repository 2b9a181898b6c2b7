"""Conversations keep their rung while they go on, whatever other tenants do."""

from router.routing.pins import Pinned, Pins
from tests.support.clock import Clock


def test_a_flood_of_one_tenant_drives_out_its_own_conversations_alone() -> None:
    pins = Pins(most=100)
    quiet = [("model", "quiet", f"talk {i}") for i in range(50)]
    for talk in quiet:
        pins.setdefault(talk, Pinned(3))
    for i in range(10_000):
        pins.setdefault(("model", "flood", f"talk {i}"), Pinned(1))
    assert [pins.get(talk) for talk in quiet] == [Pinned(3)] * 50
    assert len(pins) == 100


def test_the_first_rung_stays() -> None:
    pins = Pins()
    assert pins.setdefault(("model", "tenant", "talk"), Pinned(2)) == Pinned(2)
    assert pins.setdefault(("model", "tenant", "talk"), Pinned(5)) == Pinned(2)


def test_a_conversation_is_forgotten_after_its_last_turn() -> None:
    clock = Clock()
    pins = Pins(seconds=60, clock=clock)
    talk = ("model", "tenant", "talk")
    pins.setdefault(talk, Pinned(2))
    for _ in range(3):
        clock.now += 50
        assert pins.get(talk) == Pinned(2)
    clock.now += 61
    assert pins.get(talk) is None
    assert pins.setdefault(talk, Pinned(5)) == Pinned(5)
