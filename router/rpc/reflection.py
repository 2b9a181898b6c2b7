"""The reflection service: what this server offers, for command-line clients. It needs no credentials, like
health, and is as small."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeAlias

import grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from router.admission.permits import Permit
from router.errors import Overloaded
from router.ports import Observer
from router.rpc.reading import SmallReader
from router.rpc.refusals import Refusals

Context: TypeAlias = Any  # grpc.aio.ServicerContext

NAME = reflection.SERVICE_NAME
MAX_CALLS = 2
"""Fewer than the messages that are read at once, so that open calls do not keep health checks out."""

MAX_REQUESTS, SECONDS = 1_000, 30.0
"""Questions in a call, and how long it may take."""


class ReflectionService:
    """Answers `grpc.reflection.v1alpha.ServerReflection`.

    Args:
        services: full names of the services that it describes.
        reader: reads the requests of callers without credentials.
        observer: sees the calls that are refused.
    """

    def __init__(self, services: Sequence[str], reader: SmallReader, observer: Observer) -> None:
        # Any, since its published types are not those of a stream.
        self._servicer: Any = reflection.aio.ReflectionServicer(services)
        self._reader = reader
        self._observer = observer
        self._permit = Permit(MAX_CALLS)

    def handlers(self) -> Mapping[str, Any]:
        """Handlers of the methods by name."""
        serialize = ServerReflectionResponse.SerializeToString
        return {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self._info, None, serialize)}

    async def _info(self, _requests: object, context: Context) -> None:
        async with Refusals("ServerReflectionInfo", context, self._observer):
            with self._permit:
                await self._answer(context)

    async def _answer(self, context: Context) -> None:
        """Answer questions until there is no more. Raises Draining, InvalidRequest, Overloaded."""
        try:
            async with asyncio.timeout(SECONDS):
                async for response in self._servicer.ServerReflectionInfo(self._questions(context), context):
                    await context.write(response)
        except TimeoutError:
            raise Overloaded("calls", f"a reflection ends after {SECONDS:g} s") from None

    async def _questions(self, context: Context) -> AsyncIterator[ServerReflectionRequest]:
        for _ in range(MAX_REQUESTS):
            if (request := await self._reader.read(context, ServerReflectionRequest)) is None:
                return
            yield request
