"""HTTP to an inference engine: JSON calls and server-sent events. Every failure becomes a typed error."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError

from router.errors import BackendError, BackendRefused, BackendUnavailable

T = TypeVar("T")
Chunk = dict[str, Any]
"""One server-sent event of an engine, parsed."""

LONGEST_LINE = 1 << 20
"""Bytes that one event may have."""

KEEP_SECONDS = 3.0
"""How long an idle connection is kept: vLLM (uvicorn) and llama.cpp close theirs after 5 seconds."""

MALFORMED_RESPONSE = (aiohttp.ClientError, HttpProcessingError, ValueError, AttributeError, TypeError, LookupError)
"""Errors of reading an answer that is not HTTP, not JSON, or not of the API's shape."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to connect, to the first event, between events, for a whole answer, and for a short question."""

    connect: float = 5.0
    first: float = 120.0
    idle: float = 30.0
    total: float = 600.0
    question: float = 5.0


class EngineClient:
    """Talks to the engine at `base_url`. Build it inside a running event loop.

    Args:
        connections: at most this many at a time.
        api_key: sent as a bearer token; "" = none.
        headers: asked for the current extra headers at every request, such as a trace.
    """

    def __init__(
        self,
        base_url: str,
        timeouts: Timeouts,
        connections: int,
        api_key: str = "",
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.url = base_url.rstrip("/")
        self._timeouts = timeouts
        self._headers = headers

        def session(**how: Any) -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=timeouts.total, sock_connect=timeouts.connect),
                connector=aiohttp.TCPConnector(limit=connections, **how),
                read_bufsize=LONGEST_LINE,
                headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            )

        # A kept connection that the engine closes meanwhile fails at once, so there are fresh ones for a second try.
        self._pooled = session(keepalive_timeout=KEEP_SECONDS)
        self._fresh = session(force_close=True)

    async def close(self) -> None:
        """Close the connections."""
        await self._pooled.close()
        await self._fresh.close()

    async def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that answers a short question: a GET, or a POST of the body. Raises BackendError."""
        with mapped_errors():
            async with asyncio.timeout(self._timeouts.question), await self._sent(path, body) as response:
                _check(response, "application/json")
                found = await response.json()
        if not isinstance(found, dict):
            raise BackendError("backend: it answers no JSON object")
        return found

    async def chunks(self, path: str, body: dict[str, Any]) -> AsyncGenerator[list[Chunk]]:
        """Server-sent events up to [DONE]; events that arrive together come in one list.

        Closing the generator ends the request. Raises BackendError.
        """
        limit, rest = self._timeouts.first, b""
        with mapped_errors():
            async with await _within(limit, self._sent(path, body)) as response:
                _check(response, "text/event-stream")
                while data := await _within(limit, response.content.readany()):
                    *lines, rest = (rest + data).split(b"\n")  # an event may arrive in pieces
                    if len(rest) > LONGEST_LINE:
                        raise BackendError("backend: an event has no end")
                    chunks, ending = _parsed(lines)
                    if chunks:  # what arrived before an error is still true
                        yield chunks
                    if isinstance(ending, BackendError):
                        raise ending
                    if ending:
                        return
                    limit = self._timeouts.idle  # prefill is over: from here on silence means trouble

    async def _sent(self, path: str, body: dict[str, Any] | None) -> aiohttp.ClientResponse:
        """The response to a GET, or to a POST of the body.

        An engine may close a kept connection just when a request leaves on it: then a fresh connection is used.
        """
        method, headers = "GET" if body is None else "POST", self._headers()
        try:
            return await self._pooled.request(method, self.url + path, json=body, headers=headers)
        except aiohttp.ClientConnectorError:  # nothing listens; also a ClientOSError, but no stale connection
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return await self._fresh.request(method, self.url + path, json=body, headers=headers)


async def _within(seconds: float, work: Awaitable[T]) -> T:
    async with asyncio.timeout(seconds):
        return await work


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn foreign errors into ours. An engine's error text is not repeated: it may hold the prompt."""
    try:
        yield
    except aiohttp.ClientConnectionError as error:
        raise BackendUnavailable(f"backend: {type(error).__name__}") from error
    except TimeoutError as error:
        raise BackendError("backend: it took too long") from error
    except MALFORMED_RESPONSE as error:
        raise BackendError(f"backend: {type(error).__name__}") from error


def _parsed(lines: list[bytes]) -> tuple[list[Chunk], bool | BackendError]:
    """The chunks in some lines, and whether the stream ended behind them: properly, with an error, or not yet."""
    chunks: list[Chunk] = []
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return chunks, True
        try:
            chunk = orjson.loads(data)
        except ValueError as error:
            return chunks, BackendError(f"backend: {type(error).__name__}")
        if not isinstance(chunk, dict) or "error" in chunk:
            return chunks, BackendError("backend: it reports an error within the stream")
        chunks.append(chunk)
    return chunks, False


def _check(response: aiohttp.ClientResponse, content_type: str) -> None:
    if response.status == 429 or response.status >= 500:  # another replica may have room, or be healthy
        raise BackendUnavailable(f"backend: HTTP {response.status}")
    if response.status >= 400:
        raise BackendRefused(f"backend: it refuses the request with HTTP {response.status}")
    if response.content_type != content_type:
        raise BackendError(f"backend: it answers {response.content_type}, not {content_type}")


def expect_type(kind: type, value: Any) -> Any:
    """The value, if it is None or exactly of that type. Raises TypeError."""
    if value is not None and type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected")
    return value
