"""The channel that calls go through: its options, and which servers lie on this machine."""

import json
import re
from ipaddress import ip_address

from router.client.errors import InvalidArgument

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "budget_router.v1.BudgetRouterService"}, {"service": "grpc.health.v1.Health"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}
"""Calls are spread over all replicas that a name resolves to; one that no replica has answered yet goes to another.

CANCELLED is what gRPC's server says to calls that reach it while it stops (github.com/grpc/grpc/issues/41785). What the
caller cancels is not tried again, nor is a stream after its first event. A report twice is the same report.
"""

CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    # A replica that hangs keeps its connections open; only pings find that out.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),  # or the next call would be the first to notice
    ("grpc.http2.max_pings_without_data", 0),  # by default few are sent in silence, and an engine thinks in silence
    ("grpc.initial_reconnect_backoff_ms", 100),  # less than the retries of a call take together
    ("grpc.max_reconnect_backoff_ms", 5_000),  # by default a replica that is back might wait two minutes for calls
    # For the blocking client. As it starts a stream otherwise, gRPC's retry filter never ends the reading of one whose
    # last try finds no connection, not even by its deadline; a stream that is read on its own thread does end.
    ("SingleThreadedUnaryStream", 1),
)

HIGHEST_PORT = 65_535
_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")
_ADDRESS = re.compile(r"(?:\[[^]\s]+]|[^][:/\s]+):(?P<port>[0-9]{1,5})")
_HOST = re.compile(r"(?:\[(?P<v6>[^]]+)]|(?P<host>[^][:/]+))(?::\d+)?")


def require_address(server: str) -> None:
    """Raise InvalidArgument where `server` is neither HOST:PORT nor a gRPC name."""
    # gRPC would look for a host of that name, or take port 99999 for another.
    found = _ADDRESS.fullmatch(server)
    if not server.startswith(_SCHEMES) and (found is None or not 0 < int(found["port"]) <= HIGHEST_PORT):
        raise InvalidArgument(f"server: HOST:PORT is expected, not {server!r}", fields=["server"])


def options(server: str) -> list[tuple[str, str | int]]:
    """Channel options for `server`. A proxy from the environment cannot reach this machine's loopback."""
    return [*CHANNEL_OPTIONS, *([("grpc.enable_http_proxy", 0)] if is_loopback(server) else [])]


def is_loopback(server: str) -> bool:
    """True if all that `server` names (HOST:PORT, or any gRPC name) lies on this machine."""
    if server.startswith(("unix:", "unix-abstract:")):
        return True
    return all(map(_is_local, re.sub(r"^(dns:(///)?|ipv4:|ipv6:)", "", server).split(",")))


def _is_local(address: str) -> bool:
    found = _HOST.fullmatch(address)
    if found is None:
        return False
    host = found["v6"] or found["host"]
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
