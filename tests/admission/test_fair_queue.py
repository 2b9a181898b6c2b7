"""The laws of the queue: capacity, fairness, patience, and that nobody is forgotten."""

import asyncio
import random
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.admission.fair_queue import FairQueue
from router.errors import Overloaded
from tests.support.clock import Clock, loop_clock, settled


class Job:
    """A request that runs until told to end."""

    def __init__(self, queue: FairQueue, user: str = "a", tokens: float = 1.0, weight: float = 1.0) -> None:
        self.running = False
        self._end = asyncio.Event()
        self.task = asyncio.create_task(self._run(queue, user, weight, tokens))

    async def _run(self, queue: FairQueue, user: str, weight: float, tokens: float) -> None:
        async with queue.turn(user, weight, tokens):
            self.running = True
            await self._end.wait()
        self.running = False

    async def end(self) -> None:
        self._end.set()
        await settled()


async def test_what_fits_runs_at_once_and_the_rest_waits_its_turn() -> None:
    queue = FairQueue(10, 60)
    jobs = [Job(queue, tokens=4) for _ in range(4)]
    await settled()
    assert [job.running for job in jobs] == [True, True, False, False]
    assert (queue.under_way, queue.queued) == (8, 8)
    await jobs[0].end()
    assert [job.running for job in jobs[1:]] == [True, True, False]
    for job in jobs:
        await job.end()
    assert (queue.under_way, queue.queued) == (0, 0)


async def test_a_request_beyond_the_capacity_runs_alone() -> None:
    queue = FairQueue(10, 60)
    small = Job(queue, tokens=1)
    await settled()
    large = Job(queue, tokens=1_000)
    await settled()
    assert small.running and not large.running
    await small.end()
    assert large.running and queue.under_way == 10
    await large.end()
    assert queue.under_way == 0


async def test_a_flood_delays_only_itself() -> None:
    queue = FairQueue(1, 60)
    first = Job(queue, "flood")
    await settled()
    flood = [Job(queue, "flood") for _ in range(50)]
    await settled()
    calm = [Job(queue, "calm") for _ in range(3)]
    await settled()
    order = []
    running = first
    for _ in range(8):
        await running.end()
        (running,) = [job for job in (*flood, *calm) if job.running]
        order.append("calm" if running in calm else "flood")
    assert order.count("calm") == 3, "one for one, as long as it asks"
    for job in flood:
        job.task.cancel()
    await asyncio.gather(*(job.task for job in flood), return_exceptions=True)


async def test_a_weight_is_a_share() -> None:
    queue = FairQueue(1, 60)
    running = Job(queue, "heavy")
    await settled()
    heavy = [Job(queue, "heavy", weight=3) for _ in range(40)]
    light = [Job(queue, "light", weight=1) for _ in range(40)]
    await settled()
    served = {"heavy": 0, "light": 0}
    for _ in range(40):
        await running.end()
        (running,) = [job for job in (*heavy, *light) if job.running]
        served["heavy" if running in heavy else "light"] += 1
    assert 28 <= served["heavy"] <= 32
    for job in (*heavy, *light):
        job.task.cancel()
    await asyncio.gather(*(job.task for job in (*heavy, *light)), return_exceptions=True)


async def test_nobody_waits_longer_than_the_patience() -> None:
    queue = FairQueue(1, 0.05)
    holder = Job(queue)
    await settled()
    with pytest.raises(Overloaded) as caught:
        async with queue.turn("a", 1, 1):
            raise AssertionError
    assert (caught.value.cause, caught.value.retry_after) == ("wait", 0.05)
    with pytest.raises(Overloaded):
        async with queue.turn("a", 1, 1, patience=0):
            raise AssertionError
    assert queue.queued == 0
    await holder.end()
    async with queue.turn("a", 1, 1, patience=0):
        assert queue.under_way == 1


async def test_who_would_wait_in_vain_is_refused_at_once() -> None:
    clock = Clock()
    queue = FairQueue(10, 2.0, clock)
    async with queue.turn("a", 1, 10):
        clock.now += 1.0  # a request takes a second, so ten tokens leave in a second
    holder = Job(queue, tokens=10)
    await settled()
    waiting = [Job(queue, tokens=10)]
    await settled()
    assert queue.wait("a", 1, 10) == pytest.approx(2.0)
    waiting.append(Job(queue, tokens=10))
    await settled()
    with pytest.raises(Overloaded) as caught:
        queue.reject_early("a", 1, 10)
    assert caught.value.cause == "queue"
    assert caught.value.retry_after == pytest.approx(1.0)
    assert queue.wait("b", 1, 10) == pytest.approx(1.0), "it has had nothing yet, so it is next"
    for job in (holder, *waiting):
        await job.end()


async def test_those_who_give_up_are_forgotten() -> None:
    queue = FairQueue(1, 60)
    holder = Job(queue)
    await settled()
    jobs = [Job(queue) for _ in range(10)]
    await settled()
    for job in jobs[:-1]:
        job.task.cancel()
    await settled()
    assert queue.queued == 1
    await holder.end()
    assert jobs[-1].running
    await jobs[-1].end()
    assert (queue.under_way, queue.queued) == (0, 0)


async def test_one_that_is_let_in_as_it_gives_up_leaves_its_place_to_the_next() -> None:
    queue = FairQueue(1, 60)
    holder = Job(queue)
    await settled()
    leaver, next_ = Job(queue), Job(queue)
    await settled()
    holder._end.set()
    await asyncio.sleep(0)  # the holder leaves, and the leaver's turn has come, but it has not run yet
    leaver.task.cancel()
    await settled()
    assert next_.running and not leaver.running
    await next_.end()
    assert (queue.under_way, queue.queued) == (0, 0)


async def test_pressure_follows_the_load_slowly() -> None:
    clock = Clock()
    queue = FairQueue(10, 60, clock)
    assert queue.pressure == 0
    jobs = [Job(queue, tokens=10) for _ in range(2)]
    await settled()
    assert queue.pressure == 0, "a burst is no overload"
    clock.now += 2.0
    assert 1.2 < queue.pressure < 1.3
    clock.now += 60.0
    assert queue.pressure == pytest.approx(2.0)
    for job in jobs:
        await job.end()
    clock.now += 60.0
    assert queue.pressure == pytest.approx(0.0)


@given(st.integers(0, 2**32))
def test_whatever_happens_the_capacity_holds_and_everyone_is_answered(seed: int) -> None:
    draw = random.Random(seed)
    most, inside, ended = 20.0, 0.0, 0

    async def request(queue: FairQueue, user: str, tokens: float) -> None:
        nonlocal inside, ended
        try:
            async with queue.turn(user, draw.choice([1, 2]), tokens):
                inside += min(max(tokens, 1), most)
                assert inside <= most + 1e-6
                try:
                    for _ in range(draw.randrange(4)):
                        await asyncio.sleep(0)
                finally:
                    inside -= min(max(tokens, 1), most)
        except Overloaded:
            pass
        ended += 1

    async def run() -> None:
        queue = FairQueue(most, 60.0)
        tasks = []
        for _ in range(60):
            tasks.append(asyncio.create_task(request(queue, draw.choice("abc"), draw.uniform(0, 30))))
            if draw.random() < 0.5:
                await asyncio.sleep(0)
            if draw.random() < 0.2:
                draw.choice(tasks).cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        assert {type(error) for error in done} <= {type(None), asyncio.CancelledError}
        assert queue.under_way == pytest.approx(0) and queue.queued == pytest.approx(0)

    asyncio.run(run())


async def used(queue: FairQueue, clock: Clock, user: str, tokens: float, seconds: float, weight: float = 1.0) -> None:
    """A request of `seconds`, begun and ended."""
    async with queue.turn(user, weight, tokens):
        clock.now += seconds


async def test_a_wait_is_what_is_ahead_at_the_pace_of_the_own_share() -> None:
    clock = Clock()
    queue = FairQueue(10, 60, clock)
    await used(queue, clock, "calm", 10, 1.0)
    clock.now += 9.0
    busy = Job(queue, "busy", tokens=10)
    await settled()
    calm = 10 * exp(-1.0)  # of ten tokens had ten seconds ago
    assert queue.wait("new", 1, 5) == pytest.approx(0.5), "nobody has had less"
    assert queue.wait("calm", 1, 5) == pytest.approx(0.5), "only the busy one has had more"
    assert queue.wait("busy", 1, 5) == pytest.approx(0.5 / (1 - calm / (10 + calm))), "the calm one will come again"
    assert queue.wait("busy", 3, 5) == pytest.approx(0.5), "by weight it has had less"
    waiting = Job(queue, "calm", tokens=9)
    await settled()
    before = 10 - calm  # what the calm one may have before the two are level
    assert queue.wait("busy", 1, 5) == pytest.approx((before + 5) / 10 / (1 - calm / (10 + calm)))
    assert queue.wait("busy", 0.5, 5) == pytest.approx((9 + 5) / 10 / (1 - calm / (10 + calm))), "all that waits"
    assert queue.wait("new", 1, 5) == pytest.approx(0.5), "whoever has had nothing is next"
    assert queue.wait("calm", 1, 5) == pytest.approx((9 + 5) / 10), "behind its own"
    for job in (busy, waiting):
        await job.end()


async def test_a_weight_lets_more_of_the_others_go_first() -> None:
    clock = Clock()
    queue = FairQueue(10, 60, clock)
    await used(queue, clock, "other", 1, 1.0)
    holder, waiting = Job(queue, "mine", tokens=10), Job(queue, "other", tokens=10, weight=2)
    await settled()
    had, theirs = 10.0, exp(-0.1)
    pace = 10 * (1 - theirs / (had + theirs))
    assert queue.wait("mine", 4, 1) == pytest.approx((had / 4 * 2 - theirs + 1) / pace)
    assert queue.wait("mine", 8, 1) == pytest.approx((had / 8 * 2 - theirs + 1) / pace), "by weight it has had more"
    assert queue.wait("mine", 40, 1) == pytest.approx(0.1), "by weight it has had least"
    for job in (holder, waiting):
        await job.end()


async def test_the_time_of_a_request_is_a_slow_mean() -> None:
    clock = Clock()
    queue = FairQueue(10, 60, clock)
    holder = Job(queue, tokens=10)
    await settled()
    assert queue.wait("b", 1, 10) == 0, "nothing is known yet"
    await holder.end()
    queue = FairQueue(10, 60, clock)
    await used(queue, clock, "a", 10, 1.0)
    await used(queue, clock, "a", 10, 3.0)
    assert queue.wait("b", 1, 10) == 0, "there is room"
    holder = Job(queue, tokens=10)
    await settled()
    assert queue.wait("b", 1, 10) == pytest.approx(1.0 + 0.05 * (3.0 - 1.0))
    await holder.end()


async def test_a_wait_of_just_the_patience_is_allowed() -> None:
    clock = Clock()
    queue = FairQueue(8, 0.5, clock)
    await used(queue, clock, "a", 8, 1.0)
    holder = Job(queue, tokens=8)
    await settled()
    queue.reject_early("b", 1, 4)
    queue.reject_early("b", 1, 2, patience=0.25)
    with pytest.raises(Overloaded) as caught:
        queue.reject_early("b", 1, 3, patience=0.25)
    assert caught.value.retry_after == 0.05, "soon, as it is this caller who would not wait"
    with pytest.raises(Overloaded) as caught:
        queue.reject_early("b", 1, 8, patience=9.0)
    assert caught.value.retry_after == 0.5, "when the wait has shrunk to the patience of all"
    queue.reject_early("b", 1)
    await holder.end()


async def test_the_smallest_request_counts_as_one_token() -> None:
    queue = FairQueue(2, 60)
    jobs = [Job(queue, tokens=tokens) for tokens in (0.0, -1.0, 0.5)]
    await settled()
    assert [job.running for job in jobs] == [True, True, False]
    assert (queue.under_way, queue.queued) == (2, 1)
    for job in jobs:
        await job.end()


async def test_what_a_user_has_had_is_forgotten_within_seconds() -> None:
    clock = Clock()
    queue = FairQueue(1, 60, clock)
    for _ in range(10):
        await used(queue, clock, "early", 1, 0.0)
    clock.now += 10.0  # of the ten tokens fewer than four count now
    for _ in range(4):
        await used(queue, clock, "late", 1, 0.0)
    holder = Job(queue, "holder")
    await settled()
    late, early = Job(queue, "late"), Job(queue, "early")
    await settled()
    await holder.end()
    assert early.running and not late.running
    await early.end()
    assert late.running
    await late.end()


async def test_a_wait_that_lasts_twice_as_long_as_expected_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = loop_clock(monkeypatch)
    queue = FairQueue(1, 5.0, clock)
    holder, patient = Job(queue), Job(queue)
    await settled()
    clock.now += 9.9
    await settled()
    assert queue.queued == 1, "the patience is for what is expected, and this was not"
    clock.now += 0.2
    with pytest.raises(Overloaded) as caught:
        await patient.task
    assert (caught.value.cause, caught.value.retry_after, queue.queued) == ("wait", 5.0, 0)
    await holder.end()
