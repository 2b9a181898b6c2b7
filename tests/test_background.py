"""Who watches in the background is told everything, in order, with the time, and holds nobody up."""

import threading
import time

from router.background import Background
from router.records import Degraded, Record


def test_everything_is_told_in_order_with_its_time() -> None:
    told: list[tuple[Record, float]] = []
    background = Background(lambda record, at: told.append((record, at)))
    began = time.time()
    records = [Degraded("cache", str(number)) for number in range(1_000)]
    for record in records:
        background(record)
    background.close()
    assert [record for record, _ in told] == records
    assert all(began <= at <= time.time() for _, at in told)


def test_one_who_is_slow_holds_nobody_up() -> None:
    gate, told = threading.Event(), []

    def slow(record: Record, at: float) -> None:
        gate.wait(10)
        told.append(record)

    background = Background(slow)
    began = time.monotonic()
    for number in range(100):
        background(Degraded("cache", str(number)))
    assert time.monotonic() - began < 1 and not told
    gate.set()
    background.close()
    assert len(told) == 100


def test_what_is_not_heeded_is_not_told() -> None:
    told: list[Record] = []
    background = Background(lambda record, at: told.append(record), lambda record: record == Degraded("cache", "2"))
    for number in range(4):
        background(Degraded("cache", str(number)))
    background.close()
    assert told == [Degraded("cache", "2")]
