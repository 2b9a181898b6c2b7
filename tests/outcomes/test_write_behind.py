"""Records are written soon and in order; who flushes knows that all before are written."""

import asyncio

import pytest

from router.errors import OutcomeLogError
from router.events import Degraded
from router.outcomes.write_behind import WriteBehind
from tests.support.fakes import RecordingObserver

AGAIN_SECONDS = 0.02


def behind_of(write: "Slow", observer: RecordingObserver, most: int) -> WriteBehind[int]:
    """Writes at once, without waiting for more records of the batch."""
    return WriteBehind(write, observer, most, gather_seconds=0, again_seconds=AGAIN_SECONDS)


class Slow:
    """Writes after a while, or refuses."""

    def __init__(self, *, failing: bool = False) -> None:
        self.failing = failing
        self.written: list[int] = []

    async def __call__(self, batch: list[int]) -> None:
        await asyncio.sleep(0.01)
        if self.failing:
            raise OutcomeLogError("told to fail")
        self.written += batch


async def test_a_flush_waits_for_the_batch_under_way() -> None:
    slow = Slow()
    behind = behind_of(slow, RecordingObserver(), 100)
    behind.add(1)
    await asyncio.sleep(0.001)  # it is being written
    behind.add(2)
    await behind.flush()
    assert slow.written == [1, 2]


async def test_nothing_is_lost_at_the_end_and_order_is_kept() -> None:
    slow = Slow()
    behind = behind_of(slow, RecordingObserver(), 1_000)
    for number in range(100):
        behind.add(number)
        if number % 10 == 0:
            await asyncio.sleep(0.002)
    await behind.close()
    assert slow.written == list(range(100))


async def test_what_cannot_be_written_waits_until_it_can() -> None:
    slow, observer = Slow(failing=True), RecordingObserver()
    behind = behind_of(slow, observer, 100)
    behind.add(1)
    with pytest.raises(OutcomeLogError):
        await behind.flush()
    behind.add(2)
    await asyncio.sleep(0.1)
    assert behind.failing and observer.of(Degraded)[0].error == "0 records lost, 1 wait: told to fail"
    slow.failing = False
    async with asyncio.timeout(10):
        while slow.written != [1, 2]:  # noqa: ASYNC110  what is waited for is time
            await asyncio.sleep(0.01)
    assert not behind.failing
    await behind.close()


async def test_what_is_too_much_to_wait_is_lost_oldest_first_and_reported() -> None:
    slow, observer = Slow(failing=True), RecordingObserver()
    behind = behind_of(slow, observer, 3)
    for number in range(3):
        behind.add(number)
    await asyncio.sleep(0.005)  # they are being written
    for number in range(3, 5):
        behind.add(number)
    await asyncio.sleep(0.05)
    assert "2 records lost, 3 wait" in observer.of(Degraded)[0].error
    slow.failing = False
    await behind.close()
    assert slow.written == [2, 3, 4]


async def test_what_cannot_be_written_to_the_end_is_lost_and_reported() -> None:
    slow, observer = Slow(failing=True), RecordingObserver()
    behind = behind_of(slow, observer, 100)
    behind.add(1)
    await asyncio.sleep(0.05)
    await behind.close()
    assert observer.of(Degraded)[-1].error == "1 records lost at the end"


async def test_a_flusher_who_leaves_does_not_stop_the_write() -> None:
    slow = Slow()
    behind = behind_of(slow, RecordingObserver(), 100)
    behind.add(1)
    flushing = asyncio.create_task(behind.flush())
    await asyncio.sleep(0.001)
    flushing.cancel()
    await behind.close()
    assert slow.written == [1]
