"""HTTP to an inference engine that is not trusted: JSON calls and server-sent events.

Every failure becomes a typed error. Answers are bounded in bytes and in time; redirects and compression are refused;
only the proxy that a setting names is used.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

from router.addresses import is_loopback
from router.backends.arriving import arrived
from router.backends.failures import MappedErrors
from router.backends.silence import Silence
from router.backends.sse import GROWTH, Bounds, EventReader
from router.backends.sse import Chunk as Chunk
from router.backends.statuses import check, refused_field
from router.backends.text import dumps, loads
from router.backends.urls import engine_url, proxy_url
from router.errors import BackendError, BackendRefused

T = TypeVar("T")

MOST_AT_ONCE = 1 << 10
"""Choices, parts or tool calls that one event of an engine may have."""

LARGEST_ANSWER = 1 << 20
"""Bytes that the answer to a short question may have, beside what the question itself accounts for."""

LARGEST_REFUSAL, REFUSAL_SECONDS = 1 << 14, 1.0
"""Bytes of a refusal that are read for the field that it names, and seconds that they may take."""

KEEP_SECONDS = 3.0
"""How long an idle connection is kept: vLLM (uvicorn) and llama.cpp close theirs after 5 seconds."""

READ_AHEAD = 1 << 16
"""Bytes of a stream that are held for a caller who reads slowly, about twice that at most."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to connect, to the first event, between events, for a whole answer, and for a short question."""

    connect: float = 5.0
    first: float = 120.0
    idle: float = 30.0
    total: float = 600.0
    question: float = 5.0


class EngineClient:
    """Talks to the engine at `base_url`. Build it inside a running event loop. Raises SettingsError for a wrong URL.

    Args:
        connections: at most this many streams at a time, and as many short questions.
        api_key: sent as a bearer token; "" = none.
        headers: asked for the current extra headers at every request, such as a trace.
        proxy: URL of the proxy between here and the engine, which loopback never uses; "" = none.
    """

    def __init__(
        self,
        base_url: str,
        timeouts: Timeouts,
        connections: int,
        api_key: str = "",
        headers: Callable[[], Mapping[str, str]] = dict,
        proxy: str = "",
    ) -> None:
        self.url = engine_url(base_url)
        self._timeouts = timeouts
        self._headers = headers
        through = proxy_url(proxy) if proxy and not is_loopback(urlsplit(self.url).hostname or "") else None
        session = partial(_session, timeouts, connections, api_key, through)
        # Apart, so that slow streams on every connection keep neither health checks nor tokenising waiting.
        self._streams = session(keepalive_timeout=KEEP_SECONDS)
        self._questions = session(keepalive_timeout=KEEP_SECONDS)
        # A kept connection that the engine closes meanwhile fails at once, so there are fresh ones for a second try.
        self._fresh = session(force_close=True)

    async def close(self) -> None:
        """Close the connections."""
        for session in (self._streams, self._questions, self._fresh):
            await session.close()

    async def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that answers a short question: a GET, or a POST of the body. Raises BackendError."""
        data = None if body is None else dumps(body)
        limit = LARGEST_ANSWER + GROWTH * len(data or b"")
        with MappedErrors():
            async with (
                asyncio.timeout(self._timeouts.question),
                await self._sent(self._questions, path, data) as response,
            ):
                check(response, "application/json", path)
                found = loads(await _whole(response, limit))
        if not isinstance(found, dict):
            raise BackendError("backend: it answers no JSON object")
        return found

    async def chunks(self, path: str, body: dict[str, Any], tokens: int | None = None) -> AsyncGenerator[list[Chunk]]:
        """Server-sent events up to [DONE]; events that arrive together come in one list.

        Closing the generator ends the request. Time-outs count events: bytes that complete none are silence.

        Args:
            tokens: how many were asked for, by which bytes and events are bounded; None = no limit was asked for.

        Raises:
            BackendError: the engine fails, is silent for too long, or sends more than was asked for.
        """
        data, loop, timeouts = dumps(body), asyncio.get_running_loop(), self._timeouts
        began = loop.time()
        first, end = began + timeouts.first, began + timeouts.total
        with MappedErrors():
            async with await _by(min(first, end), self._sent(self._streams, path, data)) as response:
                try:
                    check(response, "text/event-stream", path)
                except BackendRefused as error:
                    error.field = await _refused_field(response)
                    raise
                events = EventReader(partial(arrived, response.content), Bounds.of(tokens, len(data)), path)
                with Silence(response.content, first, timeouts.idle, end) as silence:
                    while chunks := await events.next():
                        silence.until = math.inf  # a caller may take its time
                        yield chunks
                        # Prefill is over: from here on silence means trouble.
                        silence.until = loop.time() + timeouts.idle

    async def _sent(self, session: aiohttp.ClientSession, path: str, data: bytes | None) -> aiohttp.ClientResponse:
        """The response to a GET, or to a POST of the data.

        An engine may close a kept connection just when a request leaves on it: then a fresh connection is used.
        """
        method, url = "GET" if data is None else "POST", self.url + path
        given: dict[str, Any] = {"data": data, "headers": self._headers(), "allow_redirects": False}
        try:
            return await session.request(method, url, **given)
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):  # nothing listens: no stale connection
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return await self._fresh.request(method, url, **given)


def _session(
    timeouts: Timeouts, connections: int, api_key: str, proxy: str | None, **kept: Any
) -> aiohttp.ClientSession:
    """Connections to one engine, `kept` as the connector takes it; whatever the environment names has no effect."""
    key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect),  # the whole time is bounded above
        connector=aiohttp.TCPConnector(limit=connections, **kept),
        headers={"Accept-Encoding": "identity", "Content-Type": "application/json", **key},
        auto_decompress=False,
        read_bufsize=READ_AHEAD,
        trust_env=False,
        proxy=proxy,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def _whole(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of a response. Raises BackendError where it has more than `limit` bytes."""
    body = bytearray()
    while data := await response.content.readany():
        body += data
        if len(body) > limit:
            raise BackendError(f"backend: its answer is longer than {limit} bytes")
    return bytes(body)


async def _refused_field(response: aiohttp.ClientResponse) -> str:
    """The field that a refusal names; "" where it names none, or does not come at once."""
    with suppress(BackendError), MappedErrors():
        async with asyncio.timeout(REFUSAL_SECONDS):
            return refused_field(await _whole(response, LARGEST_REFUSAL))
    return ""


async def _by(deadline: float, work: Awaitable[T]) -> T:
    async with asyncio.timeout_at(deadline):
        return await work


def expect_type(kind: type, value: Any) -> Any:
    """The value, if it is None or exactly of that type. Raises TypeError."""
    if value is not None and type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected")
    return value


def expect_few(value: Any) -> list[Any]:
    """The list, where it has at most MOST_AT_ONCE members; [] for None. Raises TypeError, ValueError."""
    if value is None:
        return []
    if type(value) is not list:
        raise TypeError("list expected")
    if len(value) > MOST_AT_ONCE:
        raise ValueError("too many at once")
    return value
