"""HTTP to an inference engine: JSON calls and server-sent events, with every failure as a typed error."""

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
Event = dict[str, Any]

LONGEST_LINE = 1 << 20
"""Bytes of one event at most."""

KEEP_SECONDS = 3.0
"""Idle connections are dropped before vLLM's (uvicorn) and llama.cpp's servers do it, after 5."""

MALFORMED_RESPONSE = (aiohttp.ClientError, HttpProcessingError, ValueError, AttributeError, TypeError, LookupError)
"""What reading an answer raises that is not HTTP, not JSON, or not of the API's shape."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, to the first event, between events, for a whole answer, and for a short question."""

    connect: float = 5.0
    first: float = 120.0
    idle: float = 30.0
    total: float = 600.0
    question: float = 5.0


class Engine:
    """One engine at `{base_url}`. Must be built inside a running event loop.

    Args:
        headers: what else goes with a request at this moment.
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

        self._pooled = session(keepalive_timeout=KEEP_SECONDS)
        self._fresh = session(force_close=True)

    async def close(self) -> None:
        """Close the connections."""
        await self._pooled.close()
        await self._fresh.close()

    async def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that a short question is answered with; POST where there is a body. Raises BackendError."""
        with mapped_errors():
            async with asyncio.timeout(self._timeouts.question), await self._sent(path, body) as response:
                _check(response, "application/json")
                found = await response.json()
        if not isinstance(found, dict):
            raise BackendError("backend: it answers no JSON object")
        return found

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[list[Event]]:
        """The JSON of server-sent events up to [DONE], those that arrive together in one list.

        Closing ends the request. Raises BackendError.
        """
        limit, rest = self._timeouts.first, b""
        with mapped_errors():
            async with await _within(limit, self._sent(path, body)) as response:
                _check(response, "text/event-stream")
                while data := await _within(limit, response.content.readany()):
                    *lines, rest = (rest + data).split(b"\n")
                    if len(rest) > LONGEST_LINE:
                        raise BackendError("backend: an event has no end")
                    events, ending = _parsed(lines)
                    if events:
                        yield events
                    if isinstance(ending, BackendError):
                        raise ending
                    if ending:
                        return
                    limit = self._timeouts.idle

    async def _sent(self, path: str, body: dict[str, Any] | None) -> aiohttp.ClientResponse:
        """The response to a GET, or to a POST of a body; on a fresh connection where a kept one had been closed."""
        method, headers = "GET" if body is None else "POST", self._headers()
        try:
            return await self._pooled.request(method, self.url + path, json=body, headers=headers)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return await self._fresh.request(method, self.url + path, json=body, headers=headers)


async def _within(seconds: float, work: Awaitable[T]) -> T:
    async with asyncio.timeout(seconds):
        return await work


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Foreign errors as ours; what an engine says in an error is not repeated."""
    try:
        yield
    except aiohttp.ClientConnectionError as error:
        raise BackendUnavailable(f"backend: {type(error).__name__}") from error
    except TimeoutError as error:
        raise BackendError("backend: it took too long") from error
    except MALFORMED_RESPONSE as error:
        raise BackendError(f"backend: {type(error).__name__}") from error


def _parsed(lines: list[bytes]) -> tuple[list[Event], bool | BackendError]:
    """Events in lines, and how they end: not yet, properly, or with an error behind them."""
    events: list[Event] = []
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return events, True
        try:
            event = orjson.loads(data)
        except ValueError as error:
            return events, BackendError(f"backend: {type(error).__name__}")
        if not isinstance(event, dict) or "error" in event:
            return events, BackendError("backend: it reports an error within the stream")
        events.append(event)
    return events, False


def _check(response: aiohttp.ClientResponse, content_type: str) -> None:
    if response.status == 429 or response.status >= 500:
        raise BackendUnavailable(f"backend: HTTP {response.status}")
    if response.status >= 400:
        raise BackendRefused(f"backend: it refuses the request with HTTP {response.status}")
    if response.content_type != content_type:
        raise BackendError(f"backend: it answers {response.content_type}, not {content_type}")


def expect_type(kind: type, value: Any) -> Any:
    """The value, where it is None or of the kind. Raises TypeError."""
    if value is not None and type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected")
    return value
