"""Bytes of a stream: those of a burst are read together, and nothing waits for what has not come."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from router.backends.arriving import TURNS, arrived


def content(*there: bytes) -> StreamReader:
    """A body of which some bytes are there."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    reader = StreamReader(protocol, limit=1 << 16, loop=loop)
    for data in there:
        reader.feed_data(data)
    return reader


def each_turn(work: Callable[[], object], turns: Iterator[int]) -> None:
    """Do something in each of the next turns of the event loop."""
    if next(turns, None) is not None:
        work()
        asyncio.get_running_loop().call_soon(each_turn, work, turns)


async def test_what_had_to_be_waited_for_is_returned_at_once() -> None:
    body = content()
    reading = asyncio.create_task(arrived(body))
    await asyncio.sleep(0)
    body.feed_data(b"first")
    asyncio.get_running_loop().call_later(0, body.feed_data, b"second")
    assert await reading == b"first"
    assert await arrived(body) == b"second"


async def test_what_a_burst_brings_meanwhile_goes_along() -> None:
    body = content(b"a", b"b")
    each_turn(lambda: body.feed_data(b"c"), iter(range(2)))
    assert await arrived(body) == b"abcc"


async def test_a_burst_without_an_end_is_handed_on_after_some_turns() -> None:
    body = content(b"a")
    each_turn(lambda: body.feed_data(b"b"), turns := iter(range(100)))
    assert 1 < len(await arrived(body)) <= TURNS + 2
    assert next(turns) < 3 * TURNS


async def test_nothing_more_is_waited_for() -> None:
    body, turns = content(b"a"), iter(range(100))
    each_turn(lambda: None, turns)
    assert await arrived(body) == b"a"
    assert next(turns) <= 3


async def test_the_end_is_no_bytes() -> None:
    body = content(b"a")
    body.feed_eof()
    assert [await arrived(body), await arrived(body)] == [b"a", b""]


async def test_what_came_before_a_failure_is_returned_before_it_is_raised() -> None:
    body = content(b"a")
    asyncio.get_running_loop().call_soon(body.set_exception, ConnectionResetError())
    assert await arrived(body) == b"a"
    with pytest.raises(ConnectionResetError):
        await arrived(body)
