"""Records are written soon and in order; who flushes knows that all before are written."""

import asyncio

from router.adapters.write_behind import WriteBehind
from router.errors import OutcomeLogError
from router.records import Degraded
from tests.fakes import RecordingObserver


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
    behind = WriteBehind(slow, RecordingObserver(), 100)
    behind.add(1)
    await asyncio.sleep(0.001)  # it is being written
    behind.add(2)
    await behind.flush()
    assert slow.written == [1, 2]


async def test_nothing_is_lost_at_the_end_and_order_is_kept() -> None:
    slow = Slow()
    behind = WriteBehind(slow, RecordingObserver(), 1_000)
    for number in range(100):
        behind.add(number)
        if number % 10 == 0:
            await asyncio.sleep(0.002)
    await behind.close()
    assert slow.written == list(range(100))


async def test_a_batch_that_is_refused_is_dropped_and_told() -> None:
    slow, observer = Slow(failing=True), RecordingObserver()
    behind = WriteBehind(slow, observer, 100)
    behind.add(1)
    await behind.flush()
    slow.failing = False
    behind.add(2)
    await behind.close()
    assert slow.written == [2]
    assert [record.error for record in observer.of(Degraded)] == ["1 records dropped: told to fail"]


async def test_a_flusher_who_leaves_does_not_stop_the_write() -> None:
    slow = Slow()
    behind = WriteBehind(slow, RecordingObserver(), 100)
    behind.add(1)
    flushing = asyncio.create_task(behind.flush())
    await asyncio.sleep(0.001)
    flushing.cancel()
    await behind.close()
    assert slow.written == [1]
