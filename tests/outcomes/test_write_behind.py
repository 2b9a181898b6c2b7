"""Records are written soon and in order; who flushes knows that all before are written."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import DrainError, OutcomeLogError
from router.events import Degraded, RecordsLost
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
    assert behind.failing and observer.of(Degraded)[0].error == "1 record waits: told to fail"
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
    for number in range(3, 8):
        behind.add(number)
    assert [(lost.cause, lost.records) for lost in observer.of(RecordsLost)] == [("full", 1)] * 2
    await asyncio.sleep(0.05)
    slow.failing = False
    await behind.close()
    assert slow.written == [0, 1, 2, 5, 6, 7], "what could not be written stays, and is first"
    assert len(observer.of(RecordsLost)) == 2


async def test_a_log_that_stays_away_moves_no_record_again() -> None:
    """Tries cost the same, however many records wait."""
    weighed: list[int] = []
    slow = Slow(failing=True)

    def weigh(record: int) -> int:
        weighed.append(record)
        return 1

    behind = WriteBehind(slow, RecordingObserver(), 100, gather_seconds=0, again_seconds=0, weigh=weigh)
    behind.add(1)
    with pytest.raises(OutcomeLogError):
        await behind.flush()
    for number in range(2, 50):
        behind.add(number)
    for _ in range(3):
        with pytest.raises(OutcomeLogError):
            await behind.flush()
    slow.failing = False
    await behind.close()
    assert slow.written == weighed == list(range(1, 50))


async def test_what_cannot_be_written_to_the_end_is_lost_and_reported() -> None:
    slow, observer = Slow(failing=True), RecordingObserver()
    behind = behind_of(slow, observer, 100)
    behind.add(1)
    await asyncio.sleep(0.05)
    with pytest.raises(DrainError, match="lost: 1"):
        await behind.close()
    assert [(lost.cause, lost.records) for lost in observer.of(RecordsLost)] == [("exit", 1)]


async def test_a_flusher_who_leaves_does_not_stop_the_write() -> None:
    slow = Slow()
    behind = behind_of(slow, RecordingObserver(), 100)
    behind.add(1)
    flushing = asyncio.create_task(behind.flush())
    await asyncio.sleep(0.001)
    flushing.cancel()
    await behind.close()
    assert slow.written == [1]


class Picky:
    """Refuses a batch that holds a negative number, and one in the middle of which the log fails."""

    def __init__(self, failing_at: int | None = None) -> None:
        self.failing_at = failing_at
        self.written: list[int] = []

    async def __call__(self, batch: list[int]) -> None:
        if self.failing_at in batch:
            self.failing_at = None
            raise OutcomeLogError("told to fail")
        if min(batch) < 0:
            raise OverflowError("told to refuse it")
        self.written += batch


@given(st.lists(st.booleans(), max_size=60))
def test_a_record_that_cannot_be_written_costs_itself_alone(good: list[bool]) -> None:
    records = [number if fits else -number for number, fits in enumerate(good, 1)]

    async def run() -> None:
        picky, observer = Picky(), RecordingObserver()
        behind = WriteBehind(picky, observer, 100)
        for record in records:
            behind.add(record)
        await behind.flush()
        assert picky.written == [record for record in records if record > 0]
        lost = observer.of(RecordsLost)
        assert sum(one.records for one in lost) == good.count(False)
        assert {one.cause for one in lost} <= {"unwritable"}
        await behind.close()

    asyncio.run(run())


async def test_a_log_that_fails_between_two_bad_records_loses_and_repeats_nothing() -> None:
    picky, observer = Picky(failing_at=7), RecordingObserver()
    behind = WriteBehind(picky, observer, 100, again_seconds=0)
    for record in (1, 2, -3, 4, 5, 6, 7, -8, 9):
        behind.add(record)
    with pytest.raises(OutcomeLogError):
        await behind.flush()
    await behind.close()
    assert picky.written == [1, 2, 4, 5, 6, 7, 9]
    assert [(lost.cause, lost.records) for lost in observer.of(RecordsLost)] == [("unwritable", 1)] * 2


async def test_a_log_that_hangs_does_not_hold_up_the_end() -> None:
    async def hang(batch: list[int]) -> None:
        await asyncio.Event().wait()

    observer = RecordingObserver()
    behind = WriteBehind(hang, observer, 100, gather_seconds=0)
    behind.add(1)
    await asyncio.sleep(0.01)  # it is being written
    behind.add(2)
    async with asyncio.timeout(30):
        with pytest.raises(DrainError, match="lost: 2"):
            await behind.close(0.05)
    assert [(lost.cause, lost.records) for lost in observer.of(RecordsLost)] == [("exit", 2)]


async def test_what_a_flush_is_writing_at_the_end_is_lost_too_where_the_log_hangs() -> None:
    observer, hangs = RecordingObserver(), asyncio.Event()

    async def write(batch: list[int]) -> None:
        await hangs.wait()

    behind = WriteBehind(write, observer, 100, gather_seconds=0)
    behind.add(1)
    flush = asyncio.create_task(behind.flush())
    await asyncio.sleep(0)
    flush.cancel()  # its caller leaves; the write goes on
    behind.add(2)
    with pytest.raises(DrainError, match="records lost: 2"):
        await behind.close(0.01)
    assert observer.of(RecordsLost) == [RecordsLost("exit", 2, "they could not be written before the end")]
    hangs.set()
