"""Server-sent events of an engine that is not trusted: parsed in linear time, and bounded."""

import asyncio
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from router.backends.limits import MAX_STREAM_TOKENS, PIECES_A_TOKEN
from router.backends.statuses import reported
from router.backends.text import loads
from router.errors import BackendError

Chunk = dict[str, Any]
"""One server-sent event of an engine, parsed."""

LONGEST_LINE = 1 << 20
"""Bytes that one event may have, beside what the request itself accounts for."""

GROWTH = 8
"""Bytes of an answer that one byte of a request may account for: an engine repeats a prompt as token ids."""

TOKEN_BYTES, SPARE_BYTES = 4096, 1 << 20
"""Bytes that a token of a stream may take, with its ids and counts, and bytes of a stream beside its tokens."""

SPARE_EVENTS = 1024
"""Events of a stream beside those of its tokens."""

BATCH, BATCH_BYTES = 256, 1 << 16
"""Events, and bytes after which no further one is taken, that are handed on at a time: others run between batches."""

REPEATED = b'"prompt_token_ids":['
"""The prompt as an engine repeats it. Nobody reads it, and it may be a million ids, so it is not parsed."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes and events that a stream may have, and bytes that one line of it may have."""

    bytes: int
    events: int
    line: int

    @classmethod
    def of(cls, tokens: int | None, request: int) -> "Bounds":
        """The bounds of an answer of at most `tokens` tokens to a request of so many bytes."""
        most, repeated = MAX_STREAM_TOKENS, GROWTH * request
        if tokens is not None:
            most = min(tokens, 2 * MAX_STREAM_TOKENS)  # a thought and an answer of the greatest length
        return cls(
            SPARE_BYTES + most * TOKEN_BYTES + repeated, SPARE_EVENTS + PIECES_A_TOKEN * most, LONGEST_LINE + repeated
        )


class Lines:
    """Splits a stream of bytes into lines. Linear: a line that comes byte by byte is not copied with every byte."""

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def rest(self) -> int:
        """Bytes of the line that has not ended."""
        return len(self._rest)

    def split(self, data: bytes) -> list[bytes]:
        """The lines that end in `data`."""
        *lines, rest = data.split(b"\n")
        if lines and self._rest:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        return lines


class EventReader:
    """Reads the events of a stream up to [DONE].

    Args:
        read: waits for bytes; none at the end.
        path: the method that was asked, for errors.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], bounds: Bounds, path: str) -> None:
        self._read = read
        self._bounds = bounds
        self._path = path
        self._lines = Lines()
        self._waiting: deque[bytes] = deque()
        self._bytes = self._events = 0
        self._ended = False
        self._failure: BackendError | None = None

    async def next(self) -> list[Chunk]:
        """The next events, at least one; none at the end. What came before an error is returned before it is raised.

        Raises:
            BackendError: the engine reports an error, sends nonsense, or sends more than was asked for.
        """
        if self._waiting:
            await asyncio.sleep(0)  # the rest of a burst: others come first
        while self._waiting or not self._ended:
            if not self._waiting:
                self._take(await self._read())
            if chunks := self._parsed():
                return chunks
        if self._failure is not None:
            raise self._failure
        return []

    def _take(self, data: bytes) -> None:
        """Keep the data of events. A comment, which keeps a connection open, is no event."""
        self._bytes += len(data)
        for line in self._lines.split(data):
            if line[:3] == BOM_UTF8:
                line = line[3:]
            if line[:5] == b"data:" and (found := line[5:].strip()):
                self._waiting.append(found)
        if not data:
            self._end(None)
        elif self._lines.rest > self._bounds.line:
            self._end(BackendError("backend: an event has no end"))
        elif self._bytes > self._bounds.bytes:
            self._end(BackendError("backend: it sends more than was asked for"))

    def _parsed(self) -> list[Chunk]:
        """The next events of those that wait, at most a batch."""
        chunks: list[Chunk] = []
        size = 0
        while self._waiting and len(chunks) < BATCH and size < BATCH_BYTES:
            data = self._waiting.popleft()
            size += len(data)
            try:
                if data == b"[DONE]":
                    self._stop(None)
                else:
                    chunks.append(_chunk(data, self._path))
            except BackendError as error:
                self._stop(error)
        self._events += len(chunks)
        if self._events > self._bounds.events:
            self._stop(BackendError("backend: it sends more events than were asked for"))
        return chunks

    def _stop(self, failure: BackendError | None) -> None:
        """End here, whatever else has arrived."""
        self._waiting.clear()
        self._end(failure)

    def _end(self, failure: BackendError | None) -> None:
        """End behind the events that wait."""
        self._ended, self._failure = True, failure


def _chunk(data: bytes, path: str) -> Chunk:
    """One event. Raises BackendError where it is none, or reports an error."""
    try:
        chunk = loads(data if len(data) <= BATCH_BYTES else _without_prompt(data))
    except ValueError as error:
        raise BackendError(f"backend: {type(error).__name__}") from error
    if not isinstance(chunk, dict):
        raise BackendError("backend: an event is no JSON object")
    if chunk.get("error"):  # some engines send `"error": null` with every event
        raise reported(chunk["error"], path)
    if chunk.get("object") == "error":  # as vLLM did before it had the above
        raise reported(chunk, path)
    return chunk


def _without_prompt(data: bytes) -> bytes:
    """A long event without the prompt's ids. What is no list of numbers in their place is no JSON any more."""
    before, repeated, rest = data.partition(REPEATED)
    ids, ended, behind = rest.partition(b"]")
    return before + REPEATED + ended + behind if repeated and len(ids) > BATCH_BYTES else data
