"""One contract for what conversations keep, in a process and in Redis; and what happens where Redis is away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from router.domain import Conversation, Pinned, PinnedTurn
from router.events import Degraded
from router.ports import Pins
from router.redis.client import connect
from router.routing.pin_entries import MOST_BYTES, PinEntries
from router.routing.pins import MemoryPins
from router.routing.redis_pins import FOREIGN, TURNS, RedisPins
from tests.support.clock import Clock
from tests.support.fakes import LADDER, RecordingObserver, ladder_of
from tests.support.in_time import in_time
from tests.support.valkey import Valkey

PATIENT = 5.0
SECRET = b"secret"
TALK = Conversation("model", "tenant", "talk", LADDER)
OPENED = "0123456789abcdef" * 2


def shared(
    valkey: Valkey, observer: RecordingObserver, timeout: float = PATIENT, secret: bytes = SECRET, most: int = 100_000
) -> RedisPins:
    """The pins of one replica."""
    return RedisPins(connect(valkey.url, timeout), PinEntries(secret), timeout, MemoryPins(), observer, most)


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture(params=["memory", "redis"])
async def pins(request: pytest.FixtureRequest, observer: RecordingObserver) -> AsyncIterator[Pins]:
    """Either kind."""
    if request.param == "memory":
        yield MemoryPins()
        return
    redis = shared(request.getfixturevalue("valkey"), observer)
    yield redis
    assert not observer.records
    await redis.close()


@pytest.fixture
async def replicas(valkey: Valkey, observer: RecordingObserver) -> AsyncIterator[list[RedisPins]]:
    """Two replicas that share a Redis."""
    both = [shared(valkey, observer), shared(valkey, observer)]
    yield both
    for one in both:
        await one.close()


@pytest.fixture
async def server(valkey: Valkey) -> AsyncIterator[Redis]:
    """Redis itself, past the pins."""
    redis = Redis(port=valkey.port)
    yield redis
    await redis.aclose()


async def settled(pins: Pins, wanted: Pinned | None, seen: Pinned | None = None, talk: Conversation = TALK) -> object:
    """What one turn leaves."""
    [kept] = await pins.settle([PinnedTurn(talk, seen, wanted)])
    assert pins.known(talk) == kept
    return kept


async def test_the_first_writer_wins_and_a_change_needs_what_it_changes(pins: Pins) -> None:
    assert await settled(pins, None) is None
    assert await settled(pins, Pinned(2)) == Pinned(2)
    assert await settled(pins, Pinned(5)) == Pinned(2)
    assert await settled(pins, Pinned(3), seen=Pinned(1)) == Pinned(2)
    everything = Pinned(3, stops=True, judged=OPENED, cut=True)
    assert await settled(pins, everything, seen=Pinned(2)) == everything
    assert await settled(pins, None) == everything
    assert await settled(pins, everything, seen=everything) == everything


@pytest.mark.parametrize(
    "other",
    [
        TALK._replace(model="another"),
        TALK._replace(tenant="another"),
        TALK._replace(id="another"),
        TALK._replace(ladder=ladder_of(0, 16, 32, 64, 128, 512)),
    ],
)
async def test_another_model_tenant_id_or_ladder_is_another_conversation(pins: Pins, other: Conversation) -> None:
    await settled(pins, Pinned(2))
    assert await settled(pins, None, talk=other) is None


async def test_the_turns_of_a_batch_are_settled_in_their_order(pins: Pins) -> None:
    talks = [TALK._replace(id=str(i), tenant=str(i % 3)) for i in range(TURNS + 5)]
    wanted = [Pinned(i % 6) for i in range(len(talks))]
    turns = [PinnedTurn(talk, None, pinned) for talk, pinned in zip(talks, wanted, strict=True)]
    assert await pins.settle(turns) == wanted
    again = [PinnedTurn(TALK, None, Pinned(4)), PinnedTurn(TALK, None, Pinned(1)), PinnedTurn(TALK, Pinned(4), None)]
    assert await pins.settle(again) == [Pinned(4)] * 3


async def test_a_conversation_is_forgotten_after_its_last_turn() -> None:
    clock = Clock()
    pins = MemoryPins(seconds=60, clock=clock)
    await settled(pins, Pinned(2))
    for _ in range(3):
        clock.now += 50
        assert await settled(pins, None) == Pinned(2)
    clock.now += 61
    assert pins.known(TALK) is None
    assert await settled(pins, Pinned(5)) == Pinned(5)


async def test_a_flood_of_one_tenant_drives_out_its_own_conversations_alone() -> None:
    pins = MemoryPins(most=100)
    quiet = [TALK._replace(tenant="quiet", id=str(i)) for i in range(50)]
    for talk in quiet:
        pins.keep(talk, Pinned(3))
    for i in range(10_000):
        pins.keep(TALK._replace(tenant="flood", id=str(i)), Pinned(1))
    assert [pins.known(talk) for talk in quiet] == [Pinned(3)] * 50
    assert len(pins) == 100


async def test_in_redis_a_flood_drives_out_its_own_conversations_alone(
    valkey: Valkey, observer: RecordingObserver, server: Redis
) -> None:
    flooded, later = (shared(valkey, observer, most=100) for _ in range(2))
    quiet = [TALK._replace(tenant="quiet", id=str(i)) for i in range(100)]
    flood = [TALK._replace(tenant="flood", id=str(i)) for i in range(1_000)]
    await flooded.settle([PinnedTurn(talk, None, Pinned(3)) for talk in quiet])
    await flooded.settle([PinnedTurn(talk, None, Pinned(1)) for talk in flood])
    assert await later.settle([PinnedTurn(talk, None, None) for talk in quiet]) == [Pinned(3)] * 100
    names = PinEntries(SECRET).keys("flood")
    assert await server.hlen(names[0]) == await server.zcard(names[1]) == 100
    assert await later.settle([PinnedTurn(flood[-1], None, None)]) == [Pinned(1)]
    for one in (flooded, later):
        await one.close()


async def test_the_ones_that_have_ended_make_room(
    valkey: Valkey, observer: RecordingObserver, server: Redis, replicas: list[RedisPins]
) -> None:
    names = PinEntries(SECRET).keys("tenant")
    talks = [TALK._replace(id=str(i)) for i in range(10)]
    await replicas[0].settle([PinnedTurn(talk, None, Pinned(1)) for talk in talks])
    ends: dict[Any, float] = dict.fromkeys(await server.zrange(names[1], 0, -1), 1.0)
    await server.zadd(names[1], ends)  # an hour later
    assert await replicas[1].settle([PinnedTurn(talks[0], None, None)]) == [None]
    for _ in range(5):
        await replicas[1].settle([PinnedTurn(TALK, None, Pinned(2))])
    assert await server.hlen(names[0]) == await server.zcard(names[1]) == 1
    for name in names:
        assert 3_500 < await server.ttl(name) <= 3_600


async def test_replicas_agree_in_any_order(replicas: list[RedisPins]) -> None:
    for i in range(20):
        talk = TALK._replace(id=f"talk {i}")
        turns = [replica.settle([PinnedTurn(talk, None, Pinned(n))]) for n, replica in enumerate(replicas)]
        (first,), (second,) = await asyncio.gather(*turns)
        assert first == second


async def test_a_turn_takes_one_round_trip(replicas: list[RedisPins], server: Redis) -> None:
    await settled(replicas[0], Pinned(2))
    await server.config_resetstat()
    await settled(replicas[1], Pinned(2), seen=Pinned(2))
    calls = await server.info("commandstats")
    assert {name: calls[f"cmdstat_{name}"]["calls"] for name in ("eval", "hget")} == {"eval": 1, "hget": 1}


async def test_redis_holds_neither_names_nor_ids(replicas: list[RedisPins], server: Redis) -> None:
    talk = Conversation("the-model", "the-tenant", "the-conversation", LADDER)
    await settled(replicas[0], Pinned(2), talk=talk)
    kept: list[Any] = await server.keys("*")
    kept += [await server.hgetall(key) for key in kept if key.endswith(b"kept")]
    assert kept and not any(name in repr(kept) for name in ("the-model", "the-tenant", "the-conversation"))


async def test_an_entry_of_somebody_else_is_replaced_and_counted(
    valkey: Valkey, observer: RecordingObserver, replicas: list[RedisPins], server: Redis
) -> None:
    stranger = shared(valkey, observer, secret=b"another")
    entries = PinEntries(SECRET)
    field, names = entries.field(TALK), entries.keys(TALK.tenant)
    await settled(replicas[0], Pinned(2))
    for forged in (b"\xff" * 40, PinEntries(b"another").encode(field, Pinned(0)), b"x"):
        await server.hset(names[0], field, forged)
        assert await settled(replicas[1], Pinned(2), seen=Pinned(2)) == Pinned(2)
        assert await settled(replicas[0], None) == Pinned(2)
    assert {record.dependency for record in observer.of(Degraded)} == {FOREIGN}
    await server.hset(names[0], field, b"x" * (MOST_BYTES + 1))
    assert await settled(replicas[0], Pinned(3)) == Pinned(3), "of what is huge nothing is read"
    await stranger.close()


def test_the_largest_entry_fits() -> None:
    entry = PinEntries(SECRET).encode(b"field", Pinned(10_000, True, OPENED, True))
    assert len(entry) <= MOST_BYTES


async def test_what_redis_has_lost_is_restored_by_who_knows_it(replicas: list[RedisPins], server: Redis) -> None:
    await settled(replicas[0], Pinned(2))
    await server.flushall()
    assert await settled(replicas[0], Pinned(2), seen=Pinned(2)) == Pinned(2)
    assert await settled(replicas[1], Pinned(5)) == Pinned(2)


@pytest.mark.parametrize("spoil", [Valkey.kill, Valkey.pause])
async def test_where_redis_is_away_each_replica_knows_its_own(
    valkey: Valkey, observer: RecordingObserver, spoil: object
) -> None:
    pins = shared(valkey, observer, 0.1)
    await settled(pins, Pinned(2))
    assert not observer.records
    assert callable(spoil)
    spoil(valkey)
    for _ in range(4):
        assert await in_time(settled(pins, Pinned(2), seen=Pinned(2)), 0.1) == Pinned(2)
    other = TALK._replace(id="another")
    assert await in_time(settled(pins, Pinned(4), talk=other), 0.1) == Pinned(4)
    assert {record.dependency for record in observer.of(Degraded)} == {"pins"}
    assert pins.breaker.is_open
    await pins.close()


async def test_a_user_with_few_rights_is_enough(server: Redis, valkey: Valkey, observer: RecordingObserver) -> None:
    rights = ["+eval", "+time", "+expire", "+zadd", "+zcard", "+zrem", "+zrange", "+zrangebyscore", "+zscore"]
    rights += ["+hget", "+hset", "+hdel", "+hstrlen"]
    await server.acl_setuser(
        "router", enabled=True, passwords=["+s3cret"], keys=["budget_router:*"], commands=rights, reset=True
    )
    url = valkey.url.replace("//", "//router:s3cret@")
    pins = RedisPins(connect(url, PATIENT), PinEntries(SECRET), PATIENT, MemoryPins(), observer, most=1)
    for i in range(3):
        await settled(pins, Pinned(i), talk=TALK._replace(id=str(i)))
    assert not observer.records
    await pins.close()


def test_equal_pins_have_equal_entries() -> None:
    """Redis compares them as bytes."""
    entries = PinEntries(SECRET)
    pinned = Pinned(1, judged=OPENED)
    assert entries.encode(b"a", pinned) == entries.encode(b"a", replace(pinned))
    assert entries.decode(b"b", entries.encode(b"a", pinned)) is None
