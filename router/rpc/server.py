"""A gRPC server: options, credentials, health, reflection, drain."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from router._gen import budget_router_pb2 as pb
from router.addresses import HELD
from router.errors import SettingsError
from router.requests.limits import MAX_MESSAGE_BYTES
from router.rpc.admin import AdminServicer
from router.rpc.boundary import Boundary, Conversing, Handler
from router.rpc.connections import MAX_CONNECTION_STREAMS, PLACES
from router.rpc.grpc_server import RegisteredServer
from router.rpc.health import NAME as HEALTH
from router.rpc.health import HealthService
from router.rpc.metadata import MAX_METADATA_BYTES
from router.rpc.reading import MAX_SMALL_BYTES, SmallReader
from router.rpc.reflection import NAME as REFLECTION
from router.rpc.reflection import ReflectionService
from router.rpc.servicer import WIRE, BudgetRouterServicer

MAX_ADMIN_BYTES = 64 << 10
"""Largest message of operators, who send names and paths."""

MAX_PENDING = 10_000
"""Calls that gRPC has accepted and this process not yet seen, some 10 KB each. Beyond its own limit of 1,000 gRPC drops
calls at random, those of honest callers among them."""

MAX_PIECE_BYTES = 64 << 10
"""Bytes of one connection that gRPC takes before it looks at others."""

FOREVER = 2**31 - 1
"""What gRPC takes for no limit of a connection's age."""

UNCOMPRESSED = 1
"""Of gRPC's set of compression algorithms the one that does nothing."""

HIGHEST_PORT = 65_535
HEALTH_SECONDS = 2.0
LIVE = "live"
"""Name whose health is SERVING while the event loop turns, whatever the engine does: a restart would not mend that."""

Health = Callable[[], Awaitable[Mapping[str, bool]]]
"""Finds out which parts work, by name: "" is the service itself, others are its dependencies."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the API, and the servicer that answers its methods.

    Attributes:
        max_bytes: size of its largest message.
        wire: methods whose requests the servicer takes as bytes.
    """

    api: ServiceDescriptor
    servicer: object
    max_bytes: int = MAX_MESSAGE_BYTES
    wire: Container[str] = ()

    @classmethod
    def routing(cls, servicer: BudgetRouterServicer, max_bytes: int = MAX_MESSAGE_BYTES) -> "Service":
        """The routing service, which upstream services call."""
        return cls(pb.DESCRIPTOR.services_by_name["BudgetRouterService"], servicer, max_bytes, WIRE)

    @classmethod
    def admin(cls, servicer: AdminServicer) -> "Service":
        """The admin service, for operators."""
        return cls(pb.DESCRIPTOR.services_by_name["BudgetRouterAdminService"], servicer, MAX_ADMIN_BYTES)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A service of another API, by which other programs than our clients ask the router.

    Attributes:
        name: its full name.
        methods: the behaviour of each method; both sides speak in all of them.
    """

    name: str
    methods: Mapping[str, Conversing]


class RouterServer:
    """Serves one service on one port, and beside it services of other APIs.

    Args:
        boundary: wraps their methods.
        listen: HOST:PORT; port 0 takes a free one.
        credentials: for TLS; None = plaintext.
        health: says what works; the service is SERVING while "" is true.
        shared: other processes may listen on the same port.
        connection_seconds: age at which clients are asked to reconnect, and so find new replicas; 0 = never.
        probes: HOST:PORT that answers health checks alone, in plaintext; empty = none.
        beside: the services of other APIs.

    Raises:
        SettingsError: an address is malformed, in use, or not of this machine.
    """

    def __init__(
        self,
        service: Service,
        boundary: Boundary,
        listen: str,
        credentials: grpc.ServerCredentials | None,
        health: Health,
        shared: bool = False,
        connection_seconds: float = 0,
        probes: str = "",
        beside: Sequence[Foreign] = (),
    ) -> None:
        self._name = service.api.full_name
        self._boundary = boundary
        self._ask = health
        self._server = RegisteredServer(_options(service.max_bytes, shared, connection_seconds))
        # Health and reflection lie outside the boundary: probes have no credentials, and must be answered under load.
        self._reader = SmallReader()
        self._health = HealthService(self._reader, boundary.observer)
        self._add(self._name, boundary.around(service.api, service.servicer, service.wire))
        for other in beside:
            self._add(other.name, {name: boundary.conversing(name, does) for name, does in other.methods.items()})
        self._add(HEALTH, self._health.handlers())
        reflection = ReflectionService([self._name, HEALTH, REFLECTION], self._reader, boundary.observer)
        self._add(REFLECTION, reflection.handlers())
        self.port = _bind(self._server, listen, credentials)
        self._servers = [self._server]
        if probes:  # Kubernetes' probes speak no TLS, so they have a server of their own, with these checks alone
            probed = RegisteredServer(_options(MAX_SMALL_BYTES, shared, 0))
            probed.add_registered_method_handlers(HEALTH, dict(self._health.handlers()))
            _bind(probed, probes, None)
            self._servers.append(probed)

    def _add(self, service: str, handlers: Mapping[str, Handler]) -> None:
        self._server.add_registered_method_handlers(service, dict(handlers))

    async def start(self) -> None:
        """Accept calls, with the health of this moment; `watch_health` keeps it up to date."""
        # Asked before the first call: until then nothing is served, not even "".
        self._set(await self._ask())
        start = asyncio.gather(*(server.start() for server in self._servers))
        try:
            await asyncio.shield(start)
        finally:
            await start  # gRPC cannot stop a server whose start was cancelled

    async def drain(self, grace: float) -> None:
        """Become NOT_SERVING, refuse new calls, and let those under way end within `grace` seconds."""
        # Calls that gRPC has accepted but not yet handed on get UNAVAILABLE, which clients try at another replica.
        self._boundary.drain()
        # Balancers look elsewhere from now on, while the calls under way end.
        self._health.drain()
        # A reflection asks whenever it likes, and a check may never end: neither holds up those calls.
        self._reader.drain()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))

    async def watch_health(self, seconds: float = HEALTH_SECONDS) -> None:
        """Ask for the health again and again. Runs until cancelled; a drain makes it NOT_SERVING for good."""
        while True:
            await asyncio.sleep(seconds)
            self._set(await self._ask())

    def _set(self, works: Mapping[str, bool]) -> None:
        # Probes ask for "" or, as gRPC's documentation has it, for the full name of the service.
        self._health.set({**works, self._name: works[""], LIVE: True})


def _bind(server: RegisteredServer, listen: str, credentials: grpc.ServerCredentials | None) -> int:
    """Bind a server to HOST:PORT; returns the port. Raises SettingsError."""
    port = listen.rpartition(":")[2]
    if not port.isdigit() or int(port) > HIGHEST_PORT:  # gRPC would listen on 99999 modulo 65536
        raise SettingsError(f"cannot listen on {listen or 'nothing'}: HOST:PORT is expected")
    try:
        if credentials is None:
            return server.add_insecure_port(listen)
        return server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        seen = "port in use, or not an address of this machine"
        raise SettingsError(f"cannot listen on {listen}: {seen}; {HELD}") from error


def _options(max_bytes: int, shared: bool, connection_seconds: float) -> Sequence[tuple[str, int]]:
    """gRPC's options of a server; `shared` and `connection_seconds` as in RouterServer."""
    return (
        ("grpc.max_receive_message_length", max_bytes),
        # A compressed message grows a thousandfold, on gRPC's threads and before its size is known.
        ("grpc.compression_enabled_algorithms_bitset", UNCOMPRESSED),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", MAX_CONNECTION_STREAMS),
        # Of a connection that cancels its calls as it begins them, gRPC refuses those that find no place. Clients try
        # again what is refused this way, but by default an honest one would meet it whenever calls end quickly.
        ("grpc.http.overload_protection", 1),
        ("grpc.http2.max_deallocating_streams", PLACES - MAX_CONNECTION_STREAMS),
        ("grpc.server.max_pending_requests", MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
        # The limits above bind callers that have acknowledged them; by default a minute may pass without.
        ("grpc.http2.settings_timeout", 10_000),
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Without, gRPC keeps the window of calls that nobody reads at 64 KiB, and opens it for messages that are read.
        ("grpc.http2.bdp_probe", 0),
        # All connections take turns, a piece at a time. By default a piece has up to 4 MiB, which may hold many calls.
        ("grpc.experimental.tcp_max_read_chunk_size", MAX_PIECE_BYTES),
        # On by default: a second service on a taken port would start, and answer half of the calls.
        ("grpc.so_reuseport", int(shared)),
        ("grpc.max_connection_age_ms", round(connection_seconds * 1000) or FOREVER),
        # Pings cost next to nothing, but each one beyond a limit is added to an error of all those before it: 4,000
        # take a second of a core. Without a limit clients may also ping while an engine thinks in silence.
        ("grpc.http2.max_ping_strikes", 0),
    )
