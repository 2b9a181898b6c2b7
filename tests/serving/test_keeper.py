"""Background tasks that end are started again, counted and logged; a closed keeper leaves none behind."""

import asyncio
import itertools
import time
from functools import partial

from prometheus_client import CollectorRegistry

from router.events import TaskFailed
from router.serving.backoff import Backoff
from router.serving.keeper import Keeper
from router.telemetry.logs import Observers
from router.telemetry.metrics import Metrics
from tests.support.fakes import RecordingObserver, until

QUICK = partial(Backoff, 0.01, 0.04)


class Dying:
    """Dies with its first errors, None for a plain return; then runs until it is cancelled."""

    def __init__(self, *errors: Exception | None) -> None:
        self._errors = iter(errors)
        self.began: list[float] = []
        self.running = False

    async def __call__(self) -> None:
        self.began.append(time.monotonic())
        for error in self._errors:
            if error is None:
                return
            raise error
        self.running = True
        try:
            await asyncio.Event().wait()
        finally:
            self.running = False


async def test_a_task_that_dies_is_started_again_after_growing_pauses() -> None:
    observer, registry = RecordingObserver(), CollectorRegistry()
    metrics = Metrics(registry)
    errors = [ValueError("first"), RecursionError("second"), None, OSError("third"), OSError("fourth")]
    work = Dying(*errors)
    keeper = Keeper(Observers([observer, metrics]), QUICK)
    keeper.keep("loop", work)
    await until(lambda: work.running)
    assert observer.records == [TaskFailed("loop", error) for error in errors]
    assert registry.get_sample_value("budget_router_background_failures_total", {"task": "loop"}) == 5
    pauses = [then - now for now, then in itertools.pairwise(work.began)]
    assert all(pause >= least for pause, least in zip(pauses, (0.01, 0.02, 0.04, 0.04, 0.04), strict=True)), pauses
    await keeper.close()


async def test_one_task_that_dies_does_not_touch_another() -> None:
    keeper = Keeper(RecordingObserver(), QUICK)
    dying, steady = Dying(ValueError()), Dying()
    keeper.keep("dying", dying)
    keeper.keep("steady", steady)
    await until(lambda: dying.running and steady.running)
    assert len(steady.began) == 1
    await keeper.close()


async def test_closing_ends_every_task_and_reports_none_of_them() -> None:
    observer = RecordingObserver()
    keeper = Keeper(observer, QUICK)
    works = [Dying(), Dying()]
    for work in works:
        keeper.keep("loop", work)
    await until(lambda: all(work.running for work in works))
    await keeper.close()
    assert not any(work.running for work in works) and not observer.records
    assert len(asyncio.all_tasks()) == 1


def test_pauses_begin_anew_after_work_that_lasted() -> None:
    backoff = Backoff(1, 4)
    assert [backoff.pause() for _ in range(4)] == [1, 2, 4, 4]
    backoff.worked(4)
    assert backoff.pause() == 4
    backoff.worked(4.1)
    assert backoff.pause() == 1


async def test_a_task_is_started_again_when_something_it_awaits_is_cancelled() -> None:
    """Only `close` ends a task."""
    observer, other = RecordingObserver(), asyncio.create_task(asyncio.sleep(60))
    awaited = iter([other])
    running = asyncio.Event()

    async def work() -> None:
        for task in awaited:
            await task
        running.set()
        await asyncio.Event().wait()

    keeper = Keeper(observer, QUICK)
    keeper.keep("loop", work)
    await asyncio.sleep(0)
    other.cancel()
    await asyncio.wait_for(running.wait(), 30)
    assert [failed.task for failed in observer.of(TaskFailed)] == ["loop"]
    await keeper.close()


async def test_an_observer_that_fails_costs_neither_others_nor_the_task() -> None:
    def failing(record: object) -> None:
        raise ValueError("a counter cannot fall")

    observer, work = RecordingObserver(), Dying(ValueError("first"))
    keeper = Keeper(Observers([failing, observer]), QUICK)
    keeper.keep("loop", work)
    await until(lambda: work.running)
    assert [failed.task for failed in observer.of(TaskFailed)] == ["loop"]
    await keeper.close()
