"""The gRPC server: options, health, reflection, drain."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
from grpc.aio import Server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.errors import SettingsError
from router.rpc.admin import AdminServicer
from router.rpc.boundary import Boundary
from router.rpc.servicer import BudgetRouterServicer

MAX_MESSAGE_BYTES = 16 << 20
"""Above the limit on prompts, so that a prompt that is too long is refused by name and not by the transport."""

HIGHEST_PORT = 65_535
HEALTH_SECONDS = 2.0
SERVICES = [service.full_name for service in pb.DESCRIPTOR.services_by_name.values()]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class RouterServer:
    """Serves both services on one port.

    Args:
        listen: HOST:PORT; port 0 takes a free one.
        ready: asked every few seconds; health says SERVING while it is true.
        max_calls: calls under way at once; more are answered RESOURCE_EXHAUSTED.
    """

    def __init__(
        self,
        servicer: BudgetRouterServicer,
        admin: AdminServicer,
        listen: str,
        ready: Callable[[], Awaitable[bool]],
        max_calls: int,
    ) -> None:
        self._ready = ready
        self._watch: asyncio.Task[None] | None = None
        self._health = health_aio.HealthServicer()
        self._server: Server = grpc.aio.server(
            interceptors=[Boundary(max_calls)],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
            ],
        )
        pb_grpc.add_BudgetRouterServiceServicer_to_server(servicer, self._server)
        pb_grpc.add_BudgetRouterAdminServiceServicer_to_server(admin, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME], self._server)
        self.port = self._bind(listen)

    def _bind(self, listen: str) -> int:
        port = listen.rpartition(":")[2]
        if not port.isdigit() or int(port) > HIGHEST_PORT:  # gRPC takes 99999 for 34463
            raise SettingsError(f"can not listen on {listen or 'nothing'}: HOST:PORT is wanted")
        try:
            return self._server.add_insecure_port(listen)
        except RuntimeError as error:
            raise SettingsError(
                f"can not listen on {listen}: port in use, or not an address of this machine"
            ) from error

    async def start(self) -> None:
        """Accept calls; health follows `ready`."""
        await self._tell(await self._ready())
        await self._server.start()
        self._watch = asyncio.create_task(self._watch_health())

    async def drain(self, grace: float) -> None:
        """Say NOT_SERVING, refuse new calls, let those under way end within `grace` seconds."""
        if self._watch is not None:
            self._watch.cancel()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            await self._tell(await self._ready())

    async def _tell(self, ready: bool) -> None:
        for service in ("", *SERVICES):
            await self._health.set(service, SERVING if ready else NOT_SERVING)
