"""HTTP with engines that are hostile, broken or far away: every answer is bounded, every failure typed."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from router.backends.failures import MappedErrors
from router.backends.http import LARGEST_ANSWER, EngineClient, Timeouts
from router.backends.sse import GROWTH
from router.backends.statuses import LONGEST_RETRY, RETRY_SECONDS, retry_after
from router.backends.text import printable_name
from router.errors import (
    BackendBusy,
    BackendError,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    BackendUnreachable,
    SettingsError,
)
from tests.support.clock import Clock, loop_clock, settled
from tests.support.fakes import until
from tests.support.in_time import in_time
from tests.support.ports import free_port
from tests.support.sockets import Raw, listening

SECONDS = 0.5
OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"Content-Type: application/json\r\n"
SSE = OK + b"Content-Type: text/event-stream\r\n"
HASTY = Timeouts(connect=1.0, first=SECONDS, idle=SECONDS, total=30.0, question=SECONDS)


@asynccontextmanager
async def client_of(
    url: str, timeouts: Timeouts = HASTY, connections: int = 10, proxy: str = ""
) -> AsyncIterator[EngineClient]:
    client = EngineClient(url, timeouts, connections, proxy=proxy)
    try:
        yield client
    finally:
        await client.close()


async def asked(client: EngineClient) -> object:
    return await client.ask("/v1/models")


async def streamed(client: EngineClient) -> object:
    return [
        chunk async for chunks in client.chunks("/v1/chat/completions", {"prompt": "secret"}, 16) for chunk in chunks
    ]


@asynccontextmanager
async def facing(
    raw: Raw, timeouts: Timeouts = HASTY, connections: int = 10
) -> AsyncIterator[tuple[Raw, EngineClient]]:
    """A server, and a client of it."""
    async with listening(raw) as engine, client_of(engine.url, timeouts, connections) as client:
        yield engine, client


def says(status: int, *headers: str) -> Raw:
    """A server that answers with a status and nothing else."""
    return Raw("\r\n".join([f"HTTP/1.1 {status} So", *headers, "Content-Length: 0", "", ""]).encode())


BOTH = pytest.mark.parametrize("call", [asked, streamed])
Call = Callable[[EngineClient], Awaitable[object]]


@BOTH
@pytest.mark.parametrize(
    "raw",
    [
        Raw(OK, endless=b"A: b\r\n" * 1_000),
        Raw(OK + b"A: ", endless=b"x" * 10_000),
        Raw(OK, endless=b"X: y", pause=0.01),
        Raw(endless=b"H", pause=0.01),
        Raw(endless=b"HTTP/1.1 102 Processing\r\n\r\n", pause=0.01),
        Raw(b"HTTP/1.1 ", endless=b"9" * 1_000),
        Raw(b"\x00\x01 garbage\r\n\r\n"),
        Raw(b"HTTP/1.1 999999 OK\r\n\r\n"),
        Raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", endless=b"x" * 10_000),
        Raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
        Raw(b""),
        Raw(OK + b"\r\n{}"),
        Raw(OK + b"Content-Type: text/\xff\xfe; charset=\x00\r\n\r\n"),
        Raw(OK + b"Content-Type: text/html\r\n\r\n<html>secret</html>"),
        Raw(JSON + b"Content-Length: -5\r\n\r\n{}"),
        Raw(JSON + b"Content-Length: 100\r\n\r\n{}"),
        Raw(SSE + b"Content-Length: 100\r\n\r\ndata: {}"),
        Raw(JSON + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"),
        Raw(SSE + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"),
        Raw(JSON + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF\r\n"),
        Raw(JSON + b"Transfer-Encoding: chunked\r\n\r\n1;", endless=b"x" * 10_000, pause=0.01),
        Raw(JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", endless=b"A: bbbbbb\r\n" * 1_000),
        Raw(hold=True),
        Raw(JSON + b"\r\n", hold=True),
        Raw(SSE + b"\r\n", hold=True),
        Raw(JSON + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"{}")),
        Raw(SSE + b"Content-Encoding: br\r\n\r\ndata: {}\n\n"),
        Raw(JSON + b"\r\n", endless=b" " * 100_000),
        Raw(SSE + b"\r\n", endless=b": hello\n" * 10_000),
    ],
    ids=range(29),
)
async def test_whatever_it_answers_is_a_typed_error_in_time(raw: Raw, call: Call) -> None:
    async with facing(raw) as (engine, client):
        with pytest.raises(BackendError) as caught:
            await in_time(call(client), 2 * SECONDS)
        assert "secret" not in str(caught.value)
        assert engine.sent < 16 << 20, "nobody reads on"
        await until(lambda: engine.open == 0)


@pytest.mark.parametrize("levels", [900, 950, 1_000, 1_020])
async def test_nested_words_of_an_engine_are_typed_errors_or_names(levels: int) -> None:
    """JSON of so many levels is read, and cannot be written by Python."""
    body = b'{"version": ' + b"[" * levels + b"]" * levels + b"}"
    async with facing(Raw(JSON + b"\r\n" + body)) as (_, client):
        with suppress(BackendError), MappedErrors():
            assert printable_name((await client.ask("/version"))["version"])


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": ' + b"9" * 100_000 + b"}",
        b'{"a": NaN}',
        b'"\xff"',
        b"[]",
        b"3",
        b"null",
        b"",
        b"\xef\xbb\xbf",
    ],
    ids=range(10),
)
async def test_json_of_any_depth_or_size_is_a_typed_error(body: bytes) -> None:
    async with facing(Raw(JSON + b"\r\n" + body)) as (_, client):
        with pytest.raises(BackendError):
            await client.ask("/v1/models")


async def test_an_answer_without_a_length_is_read_to_its_end() -> None:
    raw = Raw(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n", b'{"a": ', b"1}")
    async with facing(raw) as (_, client):
        assert await client.ask("/v1/models") == {"a": 1}


async def test_an_answer_may_be_as_long_as_the_question_makes_it() -> None:
    """The token ids of a long prompt take more bytes than the prompt."""
    body = b'{"a": "' + b"x" * (LARGEST_ANSWER + 1_000) + b'"}'
    async with facing(Raw(JSON + b"\r\n" + body)) as (_, client):
        with pytest.raises(BackendError, match="longer than"):
            await client.ask("/tokenize", {"prompt": ""})
        found = await client.ask("/tokenize", {"prompt": "x" * (2_000 // GROWTH)})
        assert len(found["a"]) == LARGEST_ANSWER + 1_000


@BOTH
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_a_redirect_is_never_followed(status: int, call: Call) -> None:
    async with listening(Raw(JSON + b"\r\n{}")) as other:
        place = f"http://user:secret@127.0.0.1:{other.port}/secret?secret"
        async with facing(says(status, f"Location: {place}")) as (_, client):
            with pytest.raises(BackendUnavailable, match=f"redirects to {other.url} .*never followed") as caught:
                await call(client)
        assert "secret" not in str(caught.value)
        assert other.requests == []


async def test_a_redirect_to_nowhere_in_particular_is_one_too() -> None:
    async with facing(says(302)) as (_, client):
        with pytest.raises(BackendUnavailable, match="elsewhere on the same host"):
            await asked(client)


async def test_nothing_compressed_is_asked_for() -> None:
    async with facing(Raw(JSON + b"\r\n{}")) as (engine, client):
        await asked(client)
        with pytest.raises(BackendError):
            await streamed(client)
    assert [b"accept-encoding: identity\r\n" in request.lower() for request in engine.requests] == [True, True]


@BOTH
@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "X: y", RETRY_SECONDS),
        (429, "Retry-After: 7", 7),
        (503, "Retry-After: 7", 7),
        (429, "Retry-After: 999999", LONGEST_RETRY),
    ],
)
async def test_no_room_is_back_pressure_with_a_time(status: int, header: str, seconds: float, call: Call) -> None:
    async with facing(says(status, header)) as (_, client):
        with pytest.raises(BackendBusy, match=str(status)) as caught:
            await call(client)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", RETRY_SECONDS),
        ("2.5", 3),
        ("-3", RETRY_SECONDS),
        ("61", LONGEST_RETRY),
        ("9" * 12, LONGEST_RETRY),
        ("9" * 5_000, RETRY_SECONDS),
        ("inf", RETRY_SECONDS),
        ("nan", RETRY_SECONDS),
        ("soon", RETRY_SECONDS),
        ("\u0667", RETRY_SECONDS),
        ("Mon, 01 Jan 0001 00:00:00 GMT", RETRY_SECONDS),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_RETRY),
        ("Fri, 31 Dec 99999 23:59:59 GMT", RETRY_SECONDS),
        ("Wed, 21 Oct 2015 07:28:00 GMT", RETRY_SECONDS),
        ("", RETRY_SECONDS),
    ],
)
def test_a_time_to_come_again_is_bounded(value: str, seconds: float) -> None:
    assert retry_after(value) == seconds


@pytest.mark.parametrize("usegmt", [True, False])
def test_a_time_to_come_again_may_be_a_date(usegmt: bool) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=usegmt)
    assert 20 < retry_after(date) <= 31


@BOTH
@pytest.mark.parametrize("status", [400, 403, 413, 422])
async def test_a_refusal_is_the_requests(status: int, call: Call) -> None:
    if (status, call) == (403, asked):
        pytest.skip("the list of models holds nothing of a request")
    async with facing(says(status)) as (_, client):
        with pytest.raises(BackendRefused, match=str(status)):
            await call(client)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (401, "refuses the key"),
        (403, "refuses the key"),
        (404, "has no /v1/models"),
        (405, "has no /v1/models"),
        (407, "proxy"),
    ],
)
async def test_what_every_request_would_meet_names_its_cause(status: int, problem: str) -> None:
    async with facing(says(status)) as (_, client):
        with pytest.raises(BackendError, match=problem) as caught:
            await asked(client)
        assert not isinstance(caught.value, BackendRefused | BackendUnavailable)


EVENT = b'data: {"n": 1}\n\n'
DRIPS = [b"x", b": still there\n\n", b"\n", b"data:\n\n", b"event: ping\n\n"]


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("drip", DRIPS)
async def test_bytes_without_an_event_are_silence(drip: bytes, started: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock moves by a second with each drip; the limits are seconds, so a few drips are all that is heard."""
    raw = Raw(SSE + b"\r\n" + (EVENT if started else b""), hold=True)
    timeouts = Timeouts(first=10.0, idle=5.0, total=1_000.0)
    async with facing(raw, timeouts) as (engine, client), aclosing(client.chunks("/", {}, 16)) as chunks:
        if started:
            assert await anext(chunks) == [{"n": 1}]
        waiting = asyncio.ensure_future(anext(chunks))
        await until(lambda: engine.sent)
        clock = loop_clock(monkeypatch)
        drips = 0
        while not waiting.done() and drips < 100:
            raw.write(drip)
            drips += 1
            clock.now += 1.0
            await settled()
        with pytest.raises(BackendError, match="too long"):
            await waiting
        assert drips <= 12


@asynccontextmanager
async def begun(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Raw, Clock, AsyncIterator[Any]]]:
    """A stream of which the first event has come, with its engine and its clock; five seconds are silence."""
    raw = Raw(SSE + b"\r\n" + EVENT, hold=True)
    timeouts = Timeouts(first=10.0, idle=5.0, total=1_000.0)
    async with facing(raw, timeouts) as (_, client), aclosing(client.chunks("/", {}, 16)) as chunks:
        clock = loop_clock(monkeypatch)
        await anext(chunks)
        yield raw, clock, chunks


async def test_events_in_time_are_not_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    async with begun(monkeypatch) as (raw, clock, chunks):
        for _ in range(20):
            waiting = asyncio.ensure_future(anext(chunks))
            await settled()
            clock.now += 4.0
            raw.write(EVENT)
            assert await waiting == [{"n": 1}]


async def test_a_caller_may_take_its_time_between_events(monkeypatch: pytest.MonkeyPatch) -> None:
    async with begun(monkeypatch) as (raw, clock, chunks):
        for _ in range(20):
            clock.now += 6.0
            await settled()
        raw.write(EVENT)
        assert await anext(chunks) == [{"n": 1}]


async def test_a_stream_is_bounded_as_a_whole_however_often_something_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Raw(SSE + b"\r\n" + EVENT, hold=True)
    timeouts = Timeouts(first=10.0, idle=5.0, total=30.0)
    async with facing(raw, timeouts) as (_, client), aclosing(client.chunks("/", {}, 16)) as chunks:
        clock = loop_clock(monkeypatch)
        read = 0
        with pytest.raises(BackendTimeout, match="too long"):
            while read < 100:
                assert await anext(chunks) == [{"n": 1}]
                read += 1
                clock.now += 4.0
                raw.write(EVENT)
                await settled()
        assert 7 <= read <= 9


async def test_slow_streams_on_every_connection_keep_no_question_waiting() -> None:
    raw = Raw(SSE + b"\r\n" + EVENT, hold=True)
    async with facing(raw, Timeouts(), connections=2) as (engine, client):
        streams = [client.chunks("/", {}, 16) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        with pytest.raises(BackendError, match="text/event-stream, not application/json"):
            await in_time(asked(client), 2)
        for stream in streams:
            await stream.aclose()
        await until(lambda: engine.open == 0)


async def test_connections_are_bounded() -> None:
    raw = Raw(SSE + b"\r\n" + EVENT, hold=True)
    timeouts = Timeouts(first=SECONDS)
    async with facing(raw, timeouts, connections=2) as (engine, client):
        streams = [client.chunks("/", {}, 16) for _ in range(3)]
        for stream in streams[:2]:
            await anext(stream)
        with pytest.raises(BackendError):
            await in_time(anext(streams[2]), SECONDS)
        assert engine.open == 2
        for stream in streams:
            await stream.aclose()


@BOTH
async def test_an_address_where_nobody_listens_was_not_reached(call: Call) -> None:
    async with client_of(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(BackendUnreachable):
            await call(client)


@BOTH
async def test_a_server_without_tls_is_not_reached_by_tls(call: Call) -> None:
    async def answers_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answers_at_once, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with client_of(f"https://127.0.0.1:{port}", Timeouts()) as client:
        with pytest.raises(BackendUnreachable):
            await in_time(call(client), 2)
    server.close()


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"])
async def test_no_proxy_of_the_environment_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(Raw(JSON + b"\r\n{}")) as proxy, listening(Raw(JSON + b"\r\n" + b'{"a": 1}')) as engine:
        monkeypatch.setenv(name, proxy.url)
        async with client_of(engine.url) as client:
            assert await client.ask("/v1/models") == {"a": 1}
        assert proxy.requests == []


async def test_the_proxy_of_the_setting_is_used() -> None:
    async with listening(Raw(JSON + b"\r\n{}")) as proxy:
        async with client_of("http://engine.invalid:8000", proxy=proxy.url) as client:
            await asked(client)
        assert proxy.requests[0].startswith(b"GET http://engine.invalid:8000/v1/models ")


async def test_loopback_is_never_reached_by_a_proxy() -> None:
    answer = Raw(JSON + b"\r\n{}")
    async with listening(answer) as engine, listening(Raw()) as proxy, client_of(engine.url, proxy=proxy.url) as client:
        await asked(client)
        assert (len(engine.requests), proxy.requests) == (1, [])


async def test_a_proxy_that_is_down_is_not_the_requests_fault() -> None:
    async with client_of("http://engine.invalid", proxy=f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(BackendUnreachable):
            await asked(client)


async def test_cookies_are_not_kept() -> None:
    raw = Raw(JSON + b"Set-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}")
    async with facing(raw) as (engine, client):
        for _ in range(2):
            await asked(client)
        assert all(b"cookie" not in request.lower() for request in engine.requests)


async def test_a_wrong_address_is_refused_at_once() -> None:
    with pytest.raises(SettingsError):
        EngineClient("gpu-1:8000", Timeouts(), 1)
