"""Learning asks the engine while it answers nobody, gives way to callers, and does not wait for long."""

import asyncio

import pytest

from router.learning.quiet import PATIENCE_SECONDS, QuietMoments
from tests.support.fakes import until


class Engine:
    """Is asked by callers, as the load says, and by learning, which gets an answer once it is allowed to."""

    def __init__(self, load: float = 0.0, patience: float = PATIENCE_SECONDS) -> None:
        self.load = load
        self.begun = self.cancelled = 0
        self.may_answer = asyncio.Event()
        self.quietly = QuietMoments(lambda: self.load, patience)

    async def ask(self) -> str:
        self.begun += 1
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "answer"


async def test_it_waits_for_a_moment_without_load() -> None:
    engine = Engine(load=100.0)
    engine.may_answer.set()
    asking = asyncio.create_task(engine.quietly(engine.ask))
    await asyncio.sleep(0.05)
    assert not engine.begun
    engine.load = 0.0
    assert await asking == "answer" and (engine.begun, engine.cancelled) == (1, 0)


async def test_it_gives_way_to_a_caller_and_begins_again() -> None:
    engine = Engine()
    asking = asyncio.create_task(engine.quietly(engine.ask))
    await until(lambda: engine.begun == 1)
    engine.load = 100.0
    await until(lambda: engine.cancelled == 1)
    engine.load = 0.0
    await until(lambda: engine.begun == 2)
    engine.may_answer.set()
    assert await asking == "answer" and engine.cancelled == 1


@pytest.mark.parametrize("patience", [0.0, 0.05])
async def test_it_does_not_wait_for_ever(patience: float) -> None:
    engine = Engine(load=100.0, patience=patience)
    engine.may_answer.set()
    assert await engine.quietly(engine.ask) == "answer" and engine.begun == 1


async def test_what_has_begun_late_is_left_alone_once_the_patience_is_over() -> None:
    engine = Engine(patience=0.05)
    asking = asyncio.create_task(engine.quietly(engine.ask))
    await asyncio.sleep(0.1)
    engine.load = 100.0
    await asyncio.sleep(0.05)
    engine.may_answer.set()
    assert await asking == "answer" and (engine.begun, engine.cancelled) == (1, 0)


async def test_errors_are_passed_on_and_the_engine_stops_where_learning_is_cancelled() -> None:
    async def fail() -> str:
        raise ValueError("no")

    engine = Engine()
    with pytest.raises(ValueError, match="no"):
        await engine.quietly(fail)
    asking = asyncio.create_task(engine.quietly(engine.ask))
    await until(lambda: engine.begun == 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert engine.cancelled == 1
