"""A cluster that loses a master, and sentinels that know where the master is: real servers on loopback."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from router.domain import Conversation, Pinned, PinnedTurn
from router.errors import SettingsError
from router.redis.client import connect
from router.routing.pin_entries import PinEntries
from router.routing.pins import MemoryPins
from router.routing.redis_pins import RedisPins
from router.scoring.memory_cache import MemoryCache
from router.scoring.redis_cache import RedisCache
from router.scoring.seal import Seal
from router.scoring.tiered_cache import TieredCache
from tests.support.fakes import LADDER, RecordingObserver, request_of, router_of, score_of
from tests.support.ports import free_port
from tests.support.valkey import Valkey

SLOTS = 16_384
TIMEOUT = 1.0
"""Seconds; connecting to three servers takes a while where the machine is busy."""


async def formed(servers: list[Valkey]) -> None:
    """Make one cluster of the servers, the slots shared evenly."""
    clients: list[Any] = [Redis.from_url(server.url) for server in servers]
    share = SLOTS // len(servers) + 1
    bus = (await clients[0].config_get("cluster-port"))["cluster-port"]
    for i, client in enumerate(clients):
        await client.execute_command("CLUSTER ADDSLOTSRANGE", i * share, min((i + 1) * share, SLOTS) - 1)
        await client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port, bus)
    async with asyncio.timeout(20):
        for client in clients:
            known: dict[str, str] = {}
            while (known.get("cluster_state"), known.get("cluster_known_nodes")) != ("ok", str(len(servers))):
                await asyncio.sleep(0.05)
                known = await client.execute_command("CLUSTER INFO")
            await client.aclose()


@pytest.fixture
def masters(valkey_binary: str, tmp_path: Path) -> Iterator[list[Valkey]]:
    """Three servers of a cluster to be."""
    with ExitStack() as stack:
        servers = []
        for i in range(3):
            (folder := tmp_path / str(i)).mkdir()
            options = {"enabled": "yes", "require-full-coverage": "no", "node-timeout": "1000", "port": free_port()}
            words = [str(word) for name, value in options.items() for word in (f"--cluster-{name}", value)]
            server = Valkey(valkey_binary, folder, *words)
            server.start()
            stack.callback(server.kill)
            servers.append(server)
        yield servers


@asynccontextmanager
async def clustered(masters: list[Valkey]) -> AsyncIterator[RedisCache]:
    """A cache on all of them."""
    await formed(masters)
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in masters)
    cache = RedisCache(connect(f"redis+cluster://{hosts}", TIMEOUT), Seal(b"secret"), RecordingObserver(), 60, TIMEOUT)
    yield cache
    await cache.close()


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """redis-py forgets connections to a node that it drops, until they are collected."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def test_a_cluster_remembers_and_forgets(masters: list[Valkey]) -> None:
    async with clustered(masters) as cluster:
        scores = {b"%d" % i: score_of(i / 1_000) for i in range(300)}
        await cluster.put_many(scores)
        assert await cluster.get_many(list(scores)) == list(scores.values())
        await cluster.flush()
        assert await cluster.get_many(list(scores)) == [None] * 300
        observer = RecordingObserver()
        pins = RedisPins(cluster._redis, PinEntries(b"secret"), TIMEOUT, MemoryPins(), observer)
        talks = [Conversation("model", f"tenant {i % 50}", str(i), LADDER) for i in range(300)]
        for wanted in (1, 2):
            settled = await pins.settle([PinnedTurn(talk, None, Pinned(wanted)) for talk in talks])
            assert settled == [Pinned(1)] * 300
        assert not observer.records


async def test_a_cluster_that_loses_a_master_fails_no_request(masters: list[Valkey]) -> None:
    async with clustered(masters) as cluster:
        cache = TieredCache(MemoryCache(10, 1 << 20), cluster, RecordingObserver())
        router = router_of(cache=cache)
        for i in range(100):
            await router.decide(request_of(f"prompt {i}"))
        masters[1].kill()
        for i in range(300):
            assert (await router.decide(request_of(f"prompt {i}"))).choice.certificate
        await cache.drain()


async def test_sentinels_say_where_the_master_is(valkey: Valkey, valkey_binary: str, tmp_path: Path) -> None:
    (folder := tmp_path / "sentinel").mkdir()
    config = folder / "sentinel.conf"
    config.write_text(f"sentinel monitor scores 127.0.0.1 {valkey.port} 1\n")
    sentinel = Valkey(valkey_binary, folder, str(config), "--sentinel")
    sentinel.start()
    try:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/scores"
        cache = RedisCache(connect(url, TIMEOUT), Seal(b"secret"), RecordingObserver(), 60, TIMEOUT)
        await cache.put_many({b"a": score_of(0.5)})
        assert await cache.get_many([b"a"]) == [score_of(0.5)]
        await cache.close()
    finally:
        sentinel.kill()


def test_tls_and_its_certificates_are_taken_from_the_url() -> None:
    for url in ("rediss://h?ssl_ca_certs=/ca.pem", "rediss+cluster://h:1,g:2?ssl_ca_certs=/ca.pem"):
        client = connect(url, TIMEOUT)
        options = client.connection_pool.connection_kwargs if isinstance(client, Redis) else client.connection_kwargs
        assert options["ssl_ca_certs"] == "/ca.pem"


@pytest.mark.parametrize("url", ["redis://:s3cret@far", "redis+cluster://u:s3cret@127.0.0.1:1,far:2"])
def test_a_password_leaves_this_machine_by_tls_alone(url: str) -> None:
    with pytest.raises(SettingsError, match="far without TLS") as refused:
        connect(url, TIMEOUT)
    assert "s3cret" not in str(refused.value)
    connect(url, TIMEOUT, plaintext=True)
    connect(url.replace("redis", "rediss", 1), TIMEOUT)
    connect(url.replace("far", "localhost"), TIMEOUT)
