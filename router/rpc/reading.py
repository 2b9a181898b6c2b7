"""Messages of callers: each is read as late as possible, and only while there is room for it.

gRPC takes a whole message into memory, at most `MAX_MESSAGE_BYTES`, once its reading has begun. Before that it holds
back the caller by flow control.
"""

import asyncio
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from router.errors import InvalidRequest, Overloaded

Context: TypeAlias = Any  # grpc.aio.ServicerContext

M = TypeVar("M", bound=Message)

MESSAGE_SECONDS = 30.0
"""How long a message may take to arrive."""

MAX_SMALL_READS, MAX_SMALL_BYTES, SMALL_SECONDS = 8, 4_096, 5.0
"""The same for callers without credentials: messages at once, their size, and how long one may take."""


class Reader:
    """Reads the messages of calls, at most `most` at once: where there are more, the oldest one is given up.

    A message that has been on its way for longest is the least likely to arrive at all. Honest ones come with their
    calls, so callers that never finish theirs keep nobody out.

    Args:
        seconds: how long a message may take to arrive.
    """

    def __init__(self, most: int, seconds: float = MESSAGE_SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        self._waiting: dict[asyncio.Timeout, None] = {}  # the oldest comes first

    async def read(self, context: Context) -> bytes | None:
        """The next message of a call; None where there is no more. Raises Overloaded, InvalidRequest."""
        if len(self._waiting) >= self._most:
            self._give_up_oldest()
        limit = asyncio.timeout(self._seconds)
        self._waiting[limit] = None
        try:
            async with limit:
                data: Any = await context.read()
        except TimeoutError:
            if limit not in self._waiting:
                raise Overloaded("calls", f"{self._most} messages are on their way") from None
            raise InvalidRequest("request", f"did not arrive within {self._seconds:g} s") from None
        finally:
            self._waiting.pop(limit, None)
        return None if data is grpc.aio.EOF else bytes(data)

    async def read_one(self, context: Context) -> bytes:
        """The message of a call that has one. Raises Overloaded, InvalidRequest."""
        data = await self.read(context)
        if data is None:
            raise InvalidRequest("request", "is missing")
        return data

    def _give_up_oldest(self) -> None:
        oldest = next(iter(self._waiting))
        del self._waiting[oldest]
        oldest.reschedule(0)  # a time that has passed


class SmallReader:
    """Reads the requests of callers without credentials, which are names: few at once, and none of more than a few KB.

    gRPC has one limit for all methods, so a message of `MAX_MESSAGE_BYTES` is in memory before it is refused here. Few
    are at once.
    """

    def __init__(self, most: int = MAX_SMALL_READS, seconds: float = SMALL_SECONDS) -> None:
        self._reader = Reader(most, seconds)

    async def read(self, context: Context, kind: type[M]) -> M | None:
        """The next message of a call; None where there is no more. Raises Overloaded, InvalidRequest."""
        data = await self._reader.read(context)
        return None if data is None else _small(data, kind)

    async def read_one(self, context: Context, kind: type[M]) -> M:
        """The message of a call that has one. Raises Overloaded, InvalidRequest."""
        return _small(await self._reader.read_one(context), kind)


def _small(data: bytes, kind: type[M]) -> M:
    if len(data) > MAX_SMALL_BYTES:
        raise InvalidRequest("request", f"at most {MAX_SMALL_BYTES} bytes")
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequest("request", "is not a valid protocol message") from None
