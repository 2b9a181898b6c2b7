"""The connection that both clients share: one channel, its stubs, and the start of a call."""

from typing import Any

from grpc_health.v1 import health_pb2_grpc

from router._gen import budget_router_pb2_grpc as pb_grpc
from router.client import channel
from router.client.calls import Call
from router.client.credentials import Credentials

SERVER = "127.0.0.1:50051"
POLL_SECONDS = 0.1
"""Pause between two looks whether a service is ready."""


class Connection:
    """A channel to a service.

    Args:
        api: `grpc` or `grpc.aio`, which offer the same channels, blocking and for asyncio.
        server: HOST:PORT, or any gRPC name such as dns:///HOST:PORT.
        timeout: seconds that a call may take where it names none; None = what suits its method.

    Raises:
        InvalidArgument: `server` is no address, or a certificate is none.
    """

    def __init__(self, api: Any, server: str, timeout: float | None, credentials: Credentials) -> None:
        channel.require_address(server)
        self.server = server
        self._timeout = timeout
        self._metadata = credentials.metadata
        tls, options = credentials.for_channel(server), channel.options(server)
        self.channel = (
            api.insecure_channel(server, options) if tls is None else api.secure_channel(server, tls, options)
        )
        # One table for all services: no method of one has the name of a method of another.
        routing, health = pb_grpc.BudgetRouterServiceStub(self.channel), health_pb2_grpc.HealthStub(self.channel)
        admin = pb_grpc.BudgetRouterAdminServiceStub(self.channel)
        self._methods: dict[str, Any] = vars(routing) | vars(health) | vars(admin)

    def begin(self, call: Call[Any], timeout: float | None = None, wait: bool = False) -> Any:
        """Start a call; returns gRPC's reply or stream, or for asyncio something to await or iterate.

        Args:
            wait: wait until the timeout for a service that is not up yet.
        """
        seconds = next(given for given in (timeout, self._timeout, call.seconds) if given is not None)
        return self._methods[call.method](call.request, timeout=seconds, metadata=self._metadata, wait_for_ready=wait)
