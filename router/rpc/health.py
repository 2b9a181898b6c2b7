"""The health service: whether the router and its dependencies work. It needs no credentials, so it is small.

gRPC's own one remembers the name of every Watch, however long it is, and lets anyone hold any number of them.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeAlias

import grpc
from grpc_health.v1.health_pb2 import DESCRIPTOR, HealthCheckRequest, HealthCheckResponse

from router.admission.permits import Permit
from router.errors import NotFound
from router.ports import Observer
from router.rpc.reading import SmallReader
from router.rpc.refusals import Refusals

Context: TypeAlias = Any  # grpc.aio.ServicerContext

NAME = DESCRIPTOR.services_by_name["Health"].full_name
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
MAX_WATCHES = 500


class HealthService:
    """Answers `grpc.health.v1.Health`.

    Args:
        reader: reads the requests of callers without credentials.
        observer: sees the calls that are refused.
    """

    def __init__(self, reader: SmallReader, observer: Observer) -> None:
        self._reader = reader
        self._observer = observer
        self._watches = Permit(MAX_WATCHES)
        self._works: Mapping[str, bool] = {}
        self._changed = asyncio.Event()

    def handlers(self) -> Mapping[str, Any]:
        """Handlers of the methods by name."""
        serialize = HealthCheckResponse.SerializeToString
        return {
            "Check": grpc.stream_unary_rpc_method_handler(self._check, None, serialize),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch, None, serialize),
        }

    def set(self, works: Mapping[str, bool]) -> None:
        """Say from now on what works, by name; a drain has the last word."""
        if not self._watches.draining:
            self._change(works)

    def drain(self) -> None:
        """Say that nothing works any more, and end all watches, which would hold up the drain."""
        self._watches.draining = True
        self._change(dict.fromkeys(self._works, False))

    def _change(self, works: Mapping[str, bool]) -> None:
        if works != self._works or self._watches.draining:
            self._works = works
            self._changed.set()
            self._changed = asyncio.Event()

    async def _check(self, _requests: object, context: Context) -> HealthCheckResponse:
        async with Refusals("Check", context, self._observer):
            request = await self._reader.read_one(context, HealthCheckRequest)
            if request.service not in self._works:
                raise NotFound("service", "is not served here")
            return self._response(request.service)

    async def _watch(self, _requests: object, context: Context) -> None:
        async with Refusals("Watch", context, self._observer):
            with self._watches:
                request = await self._reader.read_one(context, HealthCheckRequest)
                await self._tell(request.service, context)

    async def _tell(self, service: str, context: Context) -> None:
        """Write the state of a service, and again whenever it changes, until a drain."""
        last = None
        while True:
            changed = self._changed
            if (response := self._response(service)) != last:
                await context.write(response)
            if self._watches.draining:
                return
            last = response
            await changed.wait()

    def _response(self, service: str) -> HealthCheckResponse:
        if service not in self._works:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        return HealthCheckResponse(status=SERVING if self._works[service] else NOT_SERVING)
