"""The laws of the queue: capacity, fairness, patience, and that nobody is forgotten."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.admission.fair_queue import FairQueue
from router.errors import Overloaded


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def settled() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


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
