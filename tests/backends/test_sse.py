"""Server-sent events, read in linear time and within bounds."""

import asyncio
import json
from codecs import BOM_UTF8
from collections.abc import Iterable

import pytest

from router.backends.sse import (
    BATCH,
    GROWTH,
    LONGEST_LINE,
    SPARE_BYTES,
    SPARE_EVENTS,
    Bounds,
    Chunk,
    EventReader,
    Lines,
)
from router.errors import BackendBusy, BackendError, BackendRefused, BackendUnavailable

DONE = b"data: [DONE]\n\n"


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


class Source:
    """Bytes that arrive piece by piece, then nothing."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        return next(self._pieces, b"")


async def read(*pieces: bytes, bounds: Bounds | None = None) -> tuple[list[list[Chunk]], BackendError | None]:
    """The batches of a stream, and the error that it ended with."""
    reader = EventReader(Source(pieces).read, bounds or Bounds.of(64, 100), "/v1/x")
    batches = []
    try:
        while chunks := await reader.next():
            batches.append(chunks)
    except BackendError as error:
        return batches, error
    return batches, None


async def test_what_arrives_together_comes_together() -> None:
    batches, failure = await read(event(n=1) + event(n=2), event(n=3) + DONE + event(n=4))
    assert (batches, failure) == ([[{"n": 1}, {"n": 2}], [{"n": 3}]], None)


async def test_an_event_may_arrive_byte_by_byte() -> None:
    data = event(text="vier über") + DONE
    batches, failure = await read(*[data[i : i + 1] for i in range(len(data))])
    assert (batches, failure) == ([[{"text": "vier über"}]], None)


@pytest.mark.parametrize(
    "nothing", [b": keep-alive\n\n", b"\n" * 50, b"event: ping\nid: 1\nretry: 5\n", b"data:\n\n", b"x\n"]
)
async def test_what_holds_no_event_is_none(nothing: bytes) -> None:
    batches, failure = await read(nothing, nothing + event(n=1), nothing, DONE)
    assert (batches, failure) == ([[{"n": 1}]], None)


async def test_what_came_before_an_error_is_still_true() -> None:
    for end in (b"data: {\n", b"data: 3\n", event(error={"message": "no"}), b"data: " + b"x" * 50_000_000):
        batches, failure = await read(event(n=1) + event(n=2) + end)
        assert batches == [[{"n": 1}, {"n": 2}]] and isinstance(failure, BackendError)


@pytest.mark.parametrize("nothing", [None, "", {}, [], False])
async def test_an_error_that_is_empty_is_none(nothing: object) -> None:
    batches, failure = await read(event(n=1, error=nothing), DONE)
    assert len(batches) == 1 and failure is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429}, BackendBusy),
        ({"code": 400, "message": "too long"}, BackendRefused),
        ({"code": 404}, BackendError),
        ({"code": 500}, BackendError),
        ({"code": "429"}, BackendBusy),
        ({"code": "422"}, BackendRefused),
        ({"code": "rate_limit_exceeded"}, BackendError),
        ({"code": "4290"}, BackendError),
        ({"code": -429}, BackendError),
        ({"code": True}, BackendError),
        ({"code": 10**30}, BackendError),
        ("out of memory", BackendError),
        ([1], BackendError),
    ],
)
async def test_an_error_within_the_stream_is_told_by_its_status(error: object, kind: type[BackendError]) -> None:
    _, failure = await read(event(error=error))
    assert type(failure) is kind and "memory" not in str(failure) and "too long" not in str(failure)


async def test_an_event_that_is_an_error_as_a_whole_is_one() -> None:
    """As vLLM wrote errors once."""
    batches, failure = await read(event(n=1), event(object="error", message="too long", code=400), DONE)
    assert batches == [[{"n": 1}]] and type(failure) is BackendRefused


@pytest.mark.parametrize("size", [1, 2, 100])
async def test_a_byte_order_mark_hides_no_event(size: int) -> None:
    data = BOM_UTF8 + event(n=1) + DONE
    batches, failure = await read(*[data[at : at + size] for at in range(0, len(data), size)])
    assert (batches, failure) == ([[{"n": 1}]], None)


async def test_a_line_is_not_copied_with_every_byte_of_it() -> None:
    """Steps are counted, not seconds: what is copied grows with the line, and not with its square."""
    lines, copied = Lines(), 0
    for _ in range(100_000):
        assert lines.split(b"x") == []
        copied += 1
    [line] = lines.split(b"\n")
    assert len(line) == copied


@pytest.mark.parametrize("size", [1, 7, 1 << 12])
async def test_a_line_without_end_is_bounded(size: int) -> None:
    source = Source(b"x" * size for _ in range(1 << 30))
    bounds = Bounds(1 << 30, 10, 1 << 16)
    with pytest.raises(BackendError, match="no end"):
        await EventReader(source.read, bounds, "/").next()
    assert source.reads == (1 << 16) // size + 1


async def test_bytes_are_bounded_by_what_was_asked_for() -> None:
    source = Source(event(text="x" * 4_000) for _ in range(1 << 30))
    bounds, got = Bounds.of(64, 0), 0
    reader = EventReader(source.read, bounds, "/")
    with pytest.raises(BackendError, match="more than was asked for"):
        while chunks := await reader.next():
            got += len(chunks)
    assert got * 4_000 < bounds.bytes < 2 * SPARE_BYTES


async def test_events_are_bounded_by_what_was_asked_for() -> None:
    source, got = Source(event() * 100 for _ in range(1 << 30)), 0
    reader = EventReader(source.read, Bounds.of(64, 0), "/")
    with pytest.raises(BackendError, match="more events"):
        while chunks := await reader.next():
            got += len(chunks)
    assert got <= SPARE_EVENTS + 2 * 64 + BATCH


async def test_comments_are_bounded_as_well() -> None:
    source = Source(b": still there\n" * 1_000 for _ in range(1 << 30))
    with pytest.raises(BackendError, match="more than was asked for"):
        await EventReader(source.read, Bounds.of(64, 0), "/").next()


def test_what_an_engine_repeats_of_the_request_is_granted() -> None:
    """The first event of vLLM holds the prompt's token ids, the last one of llama.cpp the prompt."""
    small, large = Bounds.of(10, 100), Bounds.of(10, 100 + (1 << 20))
    assert large.line - small.line == large.bytes - small.bytes == GROWTH << 20
    assert small.line > LONGEST_LINE


async def test_a_burst_is_handed_on_in_parts_between_which_others_run() -> None:
    reader = EventReader(Source([event() * (3 * BATCH), DONE]).read, Bounds.of(1_000, 0), "/")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    sizes = []
    while chunks := await reader.next():
        sizes.append(len(chunks))
    task.cancel()
    assert sizes == [BATCH] * 3
    assert turns >= 2


async def test_errors_of_reading_pass() -> None:
    async def broken() -> bytes:
        raise BackendUnavailable("gone")

    with pytest.raises(BackendUnavailable):
        await EventReader(broken, Bounds.of(1, 1), "/").next()
