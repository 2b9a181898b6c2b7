"""A client for each kind of Redis: a single server, a master that sentinels watch, or a cluster."""

from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis, Sentinel
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from router.addresses import holds_password, readable_hosts
from router.errors import SettingsError

AnyRedis = Redis | RedisCluster


def connect(url: str, timeout: float, *, plaintext: bool = False) -> AnyRedis:
    """A client that tries once, connected when first used.

    Args:
        url: `redis://` or `rediss://` (TLS) for one server, `redis+cluster://HOST:PORT,HOST:PORT` for a cluster,
            `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE` for a master that sentinels watch. User, password and options
            such as `?ssl_ca_certs=` stand where Redis URLs have them.
        timeout: seconds for connecting, and for each answer.
        plaintext: a password may go to another machine without TLS.

    Raises:
        SettingsError: the URL is malformed, or its password would leave this machine without TLS.
    """
    # No retries: a miss is cheaper than a second wait, and the circuit breaker decides when to ask again.
    patience: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    scheme, _, kind = url.partition("://")[0].partition("+")
    try:
        if not plaintext and holds_password(url) and (readable := readable_hosts(url)):
            raise SettingsError(f"Redis URL: its password would go to {readable[0]} without TLS; use rediss://")
        if not kind:
            return Redis.from_url(url, **patience)
        places, options = _servers(url, scheme)
        options |= patience | {"ssl": scheme == "rediss"}
        if kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in places]
            return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
        service = urlsplit(url).path.strip("/")
        if kind == "sentinel" and service:
            found: Redis = Sentinel(places, sentinel_kwargs=patience, **options).master_for(service)  # type: ignore[no-untyped-call]
            return found
    except (ValueError, TypeError) as error:
        raise SettingsError(f"Redis URL: {error}") from error
    raise SettingsError("Redis URL: redis://, redis+cluster:// or redis+sentinel://HOST:PORT/SERVICE is expected")


def _servers(url: str, scheme: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Hosts and ports of a URL, and the options that they share."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    parsed = [parse_url(f"{scheme}://{credentials}{at}{host}?{parts.query}") for host in hosts.split(",")]
    options = {k: v for k, v in parsed[0].items() if k not in ("host", "port", "connection_class")}
    return [(one.get("host", "localhost"), one.get("port", 6379)) for one in parsed], options
