"""Messages of callers: each is read as late as possible, and only while there is room for it.

gRPC takes a whole message into memory, up to its limit, once its reading has begun. Before that it holds
back the caller by flow control.
"""

import asyncio
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from router.admission.read_queue import FairReads
from router.errors import Draining, InvalidRequest, Overloaded

Context: TypeAlias = Any  # grpc.aio.ServicerContext
M = TypeVar("M", bound=Message)

MAX_SMALL_READS, SMALL_SECONDS, MAX_SMALL_BYTES = 4, 5.0, 4_096
"""For callers without credentials: messages that are read at once, how long one may take to arrive, and its size."""


class FairReader:
    """Reads the messages of tenants, in places as `FairReads` has them."""

    def __init__(self, max_waiting: int) -> None:
        self._places = FairReads(max_waiting)

    async def read(self, tenant: str | None, context: Context) -> bytes:
        """The message of a call. Raises Overloaded, InvalidRequest."""
        async with self._places.place(tenant, context):
            return _required(await next_message(context))


class SmallReader:
    """Reads the messages of callers without credentials, which hold names: few at once, and none of more than a few KB.

    Where there are too many, the oldest one is given up: what has been on its way for longest is the least likely to
    arrive. Honest ones come with their calls, so callers that never finish theirs keep nobody out.

    gRPC has one limit of size for all methods, so a message of that size is in memory before it is refused here.
    """

    def __init__(self) -> None:
        self._limits: dict[asyncio.Timeout, None] = {}  # of those on their way, the oldest first
        self._draining = False

    def drain(self) -> None:
        """Give up the messages that are on their way, and refuse all others from now on."""
        self._draining = True
        while self._limits:
            self._give_up_oldest()

    async def read(self, context: Context, kind: type[M]) -> M | None:
        """The next message of a call; None where there is no more. Raises Draining, Overloaded, InvalidRequest."""
        data = await self._bytes(context)
        return None if data is None else _small(data, kind)

    async def read_one(self, context: Context, kind: type[M]) -> M:
        """The message of a call that has one. Raises Draining, Overloaded, InvalidRequest."""
        return _small(_required(await self._bytes(context)), kind)

    async def _bytes(self, context: Context) -> bytes | None:
        self._require_open()
        if len(self._limits) >= MAX_SMALL_READS:
            self._give_up_oldest()
        limit = asyncio.timeout(SMALL_SECONDS)
        self._limits[limit] = None
        try:
            async with limit:
                return await next_message(context)
        except TimeoutError:
            self._require_open()
            if limit not in self._limits:
                raise Overloaded("calls", f"{MAX_SMALL_READS} messages are on their way") from None
            raise InvalidRequest("request", f"did not arrive within {SMALL_SECONDS:g} s") from None
        finally:
            self._limits.pop(limit, None)

    def _require_open(self) -> None:
        if self._draining:
            raise Draining

    def _give_up_oldest(self) -> None:
        oldest = next(iter(self._limits))
        del self._limits[oldest]
        end_now(oldest)


def end_now(limit: asyncio.Timeout) -> None:
    """Let a timeout that has been entered expire at once, unless it is just expiring by itself."""
    if not limit.expired():
        limit.reschedule(0)  # a time that has passed


async def next_message(context: Context) -> bytes | None:
    """The next message of a call; None where there is no more."""
    data = await context.read()
    return None if data is grpc.aio.EOF else data


def _required(data: bytes | None) -> bytes:
    if data is None:
        raise InvalidRequest("request", "is missing")
    return data


def _small(data: bytes, kind: type[M]) -> M:
    if len(data) > MAX_SMALL_BYTES:
        raise InvalidRequest("request", f"at most {MAX_SMALL_BYTES} bytes")
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequest("request", "is not a valid protocol message") from None
