"""Who reads next where many messages are on their way."""

import asyncio
from dataclasses import dataclass, field

import pytest

from router.admission.read_queue import ReadQueue
from router.errors import Overloaded

LONG = 1_000.0
"""Seconds that no test waits for."""


@dataclass
class Calls:
    """Calls that wait for a queue's places, by name; a name begins with its connection."""

    queue: ReadQueue
    reading: list[str] = field(default_factory=list)
    may_end: dict[str, asyncio.Event] = field(default_factory=dict)

    async def begin(self, *names: str) -> list["asyncio.Task[None]"]:
        """Calls that came in this order."""
        tasks = [asyncio.create_task(self._call(name)) for name in names]
        await settled()
        return tasks

    async def end(self, name: str) -> None:
        self.may_end[name].set()
        await settled()

    async def _call(self, name: str) -> None:
        self.may_end[name] = asyncio.Event()
        async with self.queue.place(Connection(name)):
            self.reading.append(name)
            await self.may_end[name].wait()


@dataclass(frozen=True)
class Connection:
    """The context of a call, as far as a queue asks for it."""

    call: str

    def peer(self) -> str:
        return self.call[0]


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def calls(places: int = 1, max_waiting: int = 100, seconds: float = LONG, hurried: float = LONG) -> Calls:
    return Calls(ReadQueue(places, max_waiting, seconds, hurried))


async def test_the_connection_with_the_fewest_waiting_calls_is_next_and_its_newest_call() -> None:
    some = calls()
    await some.begin("a1", "a2", "a3", "b1", "c1")
    for name in ("a1", "c1", "b1", "a3"):
        await some.end(name)
    assert some.reading == ["a1", "c1", "b1", "a3", "a2"]


async def test_where_too_many_wait_the_connection_with_most_of_them_loses_its_oldest() -> None:
    some = calls(max_waiting=3)
    started = await some.begin("a1", "a2", "a3", "a4", "b1")
    with pytest.raises(Overloaded):
        await started[1]
    assert not any(task.done() for task in [started[0], *started[2:]])


async def test_calls_that_leave_keep_no_place() -> None:
    some = calls(places=2)
    started = await some.begin("a1", "a2", "b1", "b2", "c1")
    started[4].cancel()  # in line for the next place
    some.may_end["a1"].set()
    await settled()
    started[1].cancel()  # holds one
    await settled()
    assert some.reading == ["a1", "a2", "b2", "b1"]
    for name in ("b1", "b2"):
        await some.end(name)
    await some.begin("d1", "d2", "d3")
    assert some.reading[4:] == ["d1", "d2"]


async def test_a_call_that_leaves_in_the_moment_it_gets_a_place_passes_it_on() -> None:
    some = calls()
    started = await some.begin("a1", "b1", "c1")
    some.may_end["a1"].set()
    await asyncio.sleep(0)  # the place is given to c1, which has not run since
    assert started[0].done()
    started[2].cancel()
    await settled()
    assert some.reading == ["a1", "b1"]


async def test_no_call_waits_for_ever() -> None:
    some = calls(seconds=0.05, hurried=LONG)  # the first message, for which others wait, stays
    holding, waiting = await some.begin("a1", "b1")
    with pytest.raises(Overloaded):
        await waiting
    assert not holding.done()


async def test_a_message_that_does_not_come_makes_way_for_those_that_wait() -> None:
    some = calls(hurried=0.01)
    first, second, third = await some.begin("a1", "b1", "c1")
    for task in (first, third):
        with pytest.raises(Overloaded, match="others wait"):
            await task
    await settled()
    assert some.reading == ["a1", "c1", "b1"] and not second.done()
