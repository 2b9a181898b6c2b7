"""Callers without credentials: they are refused before anything of theirs is read, and they harm nobody."""

import asyncio
import gc
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from router._gen import budget_router_pb2 as pb
from router.admission import read_queue
from router.admission.tenants import Key, Tenant, Tenants, digest
from router.bundle.manifest import Bundle
from router.domain import ReasoningDelta
from router.errors import InvalidRequest, Overloaded
from router.events import CallCompleted
from router.rpc import health, reading, reflection
from router.rpc.connections import MAX_CONNECTION_STREAMS, PLACES
from tests.rpc.conftest import PATIENCE, TOKEN, Service, bearer, decide, generate, refusal, serving
from tests.support import attacks, http2
from tests.support.fakes import FakeBackend, Hang, router_of, until

ONE, OTHER = "one's key", "other's key"
TENANTS = Tenants({"one": Tenant(keys=(Key(sha256=digest(ONE)),)), "other": Tenant(keys=(Key(sha256=digest(OTHER)),))})
EXHAUSTED, INVALID = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT
SERVING = health_pb2.HealthCheckResponse.SERVING
UNFINISHED = http2.message(b"", length=3 << 20)
"""The prefix of a message that never comes."""


@pytest.fixture
async def closed(bundle: Bundle) -> AsyncIterator[Service]:
    """A service whose tenants have keys."""
    async with serving(router_of(tenants=("one", "other")), bundle, tenants=TENANTS) as service:
        yield service


def key(of: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {of}")]


async def status(address: str, path: str, metadata: http2.Headers = (), data: bytes = UNFINISHED) -> int | None:
    """How the server ends a call whose message does not end."""
    async with http2.connected(address) as connection, asyncio.timeout(PATIENCE):
        await connection.send(http2.call(1, path, metadata) + http2.body(1, data, end=False))
        return await connection.status()


@dataclass(frozen=True)
class FakeContext:
    """A call whose message is there."""

    message: Message

    async def read(self) -> bytes:
        return self.message.SerializeToString()


async def answered(service: Service, of: str = ONE) -> bool:
    """An honest call, which must succeed."""
    return bool((await service.routing.Decide(decide(), timeout=PATIENCE, **bearer(of))).decision.rung)


def probes(service: Service) -> Any:
    return health_pb2_grpc.HealthStub(service.channel)


async def healthy(service: Service) -> bool:
    found = await probes(service).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    return bool(found.status == SERVING)


@pytest.mark.parametrize(
    "method", [method.name for method in pb.DESCRIPTOR.services_by_name["BudgetRouterService"].methods]
)
@pytest.mark.parametrize("metadata", [[], key("a guess")], ids=["no key", "a wrong key"])
async def test_without_a_key_no_message_is_waited_for(closed: Service, method: str, metadata: http2.Headers) -> None:
    path = f"/budget_router.v1.BudgetRouterService/{method}"
    assert await status(closed.address, path, metadata) == grpc.StatusCode.UNAUTHENTICATED.value[0]


@pytest.mark.parametrize("path", ["/budget_router.v1.BudgetRouterService/Nothing", "/nobody/Nothing", "/", "nonsense"])
async def test_of_an_unknown_method_no_message_is_waited_for(closed: Service, path: str) -> None:
    assert await status(closed.address, path) == grpc.StatusCode.UNIMPLEMENTED.value[0]


@pytest.mark.parametrize("path", ["/\xff\xfe", "/budget_router.v1.BudgetRouterService/\xc3", "\x80"])
async def test_a_method_whose_name_is_no_text_ends_no_server(closed: Service, path: str) -> None:
    """gRPC decodes it in the loop that accepts all calls: one such call would shut the server down."""
    assert await status(closed.address, path) == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert await answered(closed) and await healthy(closed)


async def test_without_room_no_message_is_waited_for(bundle: Bundle) -> None:
    backend = FakeBackend([ReasoningDelta("hm"), Hang()])
    async with serving(router_of(backend=backend), bundle, max_calls=1) as service:
        call = service.routing.Generate(generate())
        await call.read()
        assert await status(service.address, attacks.DECIDE) == EXHAUSTED.value[0]
        call.cancel()
        await until(lambda: backend.open == 0)


async def test_a_large_message_without_a_key_is_answered_all_the_same(closed: Service) -> None:
    seen = await refusal(closed.routing.Decide(decide("x" * (3 << 20)), timeout=PATIENCE))
    assert seen.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_call_without_a_message_is_refused_by_name(fake: Service) -> None:
    async with http2.connected(fake.address) as connection, asyncio.timeout(PATIENCE):
        await connection.send(http2.call(1, attacks.DECIDE, flags=http2.END_HEADERS | http2.END_STREAM))
        assert await connection.status() == INVALID.value[0]


async def test_a_message_that_would_explode_is_refused_before_it_is_parsed(closed: Service) -> None:
    data, call = attacks.empty_messages(), closed.channel.unary_unary(attacks.DECIDE)
    assert (await refusal(call(data, timeout=PATIENCE))).code is grpc.StatusCode.UNAUTHENTICATED
    seen = await refusal(call(data, timeout=PATIENCE, **bearer(ONE)))
    assert (seen.code, seen.fields) == (INVALID, ["request"]) and "fields" in seen.message


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("path", [attacks.DECIDE, attacks.HEALTH_CHECK])
async def test_nothing_compressed_is_taken(closed: Service, compression: grpc.Compression, path: str) -> None:
    """It would grow a thousandfold, on gRPC's threads."""
    call: Any = closed.channel.unary_unary(path)
    seen = await refusal(call(b"", compression=compression, timeout=PATIENCE, **bearer(ONE)))
    assert seen.code is grpc.StatusCode.UNIMPLEMENTED and "ompression" in seen.message
    assert await answered(closed)


async def test_messages_that_never_end_cost_their_own_tenant_alone(closed: Service) -> None:
    async with http2.connected(closed.address) as connection:
        for stream in range(1, 2 * MAX_CONNECTION_STREAMS, 2):
            await connection.send(
                http2.call(stream, attacks.DECIDE, key(OTHER)) + http2.body(stream, UNFINISHED, end=False)
            )
        for _ in range(10):
            assert await answered(closed)


async def test_messages_that_never_end_keep_nobody_out_of_an_open_service(
    fake: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_queue, "OPEN_SECONDS", 0.1)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            connection = await stack.enter_async_context(http2.connected(fake.address))
            for stream in range(1, 2 * MAX_CONNECTION_STREAMS, 2):
                await connection.send(http2.call(stream, attacks.DECIDE) + http2.body(stream, UNFINISHED, end=False))
        for _ in range(5):
            assert await answered(fake)


async def test_a_message_that_comes_too_slowly_is_given_up(closed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_queue, "MESSAGE_SECONDS", 0.1)
    assert await status(closed.address, attacks.DECIDE, key(ONE)) == INVALID.value[0]


async def test_more_calls_than_a_connection_carries_wait_and_succeed(closed: Service) -> None:
    calls = [answered(closed) for _ in range(4 * MAX_CONNECTION_STREAMS)]
    assert all(await asyncio.gather(*calls))


async def test_calls_that_are_cancelled_at_once_make_no_other_call_fail(closed: Service) -> None:
    flood = asyncio.create_task(attacks.rapid_reset(closed.address, calls=5_000, connections=3))
    asked = [await answered(closed) for _ in range(50)]
    await flood
    assert all(asked) and await healthy(closed)


async def test_of_calls_that_are_cancelled_at_once_few_wait(closed: Service) -> None:
    """Even while this process sees none of them: if too many wait, gRPC drops calls at random, also those of others."""
    calls, block = 2_000, http2.header_block(attacks.DECIDE)
    streams = range(1, 2 * calls, 2)
    begun = [http2.frame(http2.HEADERS, http2.END_HEADERS, stream, block) + http2.reset(stream) for stream in streams]
    async with http2.connected(closed.address) as connection, asyncio.timeout(PATIENCE):
        await connection.begun()
        await connection.send(b"".join(begun))
        time.sleep(0.3)  # the event loop stands still, while gRPC goes on  # noqa: ASYNC251
        refused = 0
        async for seen in connection.answers():
            refused += seen.kind == http2.RESET and int.from_bytes(seen.payload) == http2.REFUSED
            if refused >= calls - PLACES - MAX_CONNECTION_STREAMS:
                break
    assert not connection.closed


async def test_a_client_may_ping_as_often_as_it_likes(closed: Service) -> None:
    """Hanging up costs more: gRPC adds each ping beyond a limit to an error of all those before it."""
    async with http2.connected(closed.address) as connection, asyncio.timeout(PATIENCE):
        await connection.send(http2.frame(http2.PING, 0, 0, b"12345678") * 1_000)
        async for seen in connection.answers():
            if seen.kind == http2.PING and seen.flags & http2.ACK:
                break
        await connection.send(http2.call(1, attacks.DECIDE))
        assert await connection.status() == grpc.StatusCode.UNAUTHENTICATED.value[0]


async def test_a_connection_that_cancels_all_its_calls_is_closed(closed: Service) -> None:
    block = http2.header_block(attacks.DECIDE)
    async with http2.connected(closed.address) as connection, asyncio.timeout(PATIENCE):
        await connection.begun()
        closing = asyncio.create_task(connection.ended(1_000_000))
        for stream in range(1, 4_000, 2):
            begun = http2.frame(http2.HEADERS, http2.END_HEADERS, stream, block)
            await connection.send(begun + http2.reset(stream))
        await closing
        assert connection.closed
    assert await answered(closed) and await healthy(closed)


async def test_closing_a_connection_leaves_no_file_open(closed: Service) -> None:
    before = _opened()
    async with http2.connected(closed.address) as connection, asyncio.timeout(PATIENCE):
        await connection.send(attacks.continued(1, 1 << 18))
        while await connection.receive() is not None:  # until the server hangs up
            pass
    assert await answered(closed)
    assert _opened() == before


def _opened() -> int:
    """How many things other than sockets this process has open: pipes, files, queues of events."""
    kinds = [os.stat(path).st_mode for path in Path("/dev/fd").iterdir() if path.exists()]  # noqa: PTH116
    return sum(not stat.S_ISSOCK(kind) for kind in kinds)


async def test_a_client_may_cancel_as_many_calls_as_a_connection_carries(closed: Service) -> None:
    calls = [closed.routing.Decide(decide(), timeout=PATIENCE, **bearer(ONE)) for _ in range(MAX_CONNECTION_STREAMS)]
    await asyncio.sleep(0)
    assert all(call.cancel() for call in calls)
    assert await answered(closed)


async def test_metadata_of_a_client_that_acknowledges_no_limit_costs_it_its_connection(closed: Service) -> None:
    async with http2.connected(closed.address) as connection, asyncio.timeout(PATIENCE):
        await connection.send(b"".join(attacks.continued(stream, 1 << 18) for stream in range(1, 20, 2)))
        while await connection.receive() is not None:  # until the server hangs up
            pass
    assert await answered(closed) and await healthy(closed)


async def test_refused_calls_leave_no_garbage(closed: Service) -> None:
    """Only the collector would find it, which runs rarely, and it holds the metadata of each call."""
    calls = 50
    for _ in range(2):  # the first round makes what is made once
        gc.collect()
        for method in (attacks.DECIDE, "/nobody/Nothing", attacks.HEALTH_CHECK):
            for _ in range(calls):
                await refusal(closed.channel.unary_unary(method)(b"\x0a\x01x", metadata=[("x-padding", "x" * 1_000)]))
        await asyncio.sleep(0.1)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        kinds = [type(one).__name__ for one in gc.garbage]
        gc.garbage.clear()
    assert not any(kinds.count(kind) >= calls for kind in {"_Metadatum", "_HandlerCallDetails", "AbortError", "frame"})


@pytest.mark.parametrize("method", [attacks.HEALTH_CHECK, attacks.HEALTH_WATCH])
async def test_a_name_of_megabytes_has_no_health(closed: Service, method: str) -> None:
    data = health_pb2.HealthCheckRequest(service="x" * (1 << 20)).SerializeToString()
    for address in (closed.channel, closed.admin_channel):
        seen = await refusal(address.unary_stream(method)(data, timeout=PATIENCE))
        assert seen.code in (INVALID, EXHAUSTED)  # the admin port takes no message of that size at all


async def test_unfinished_health_checks_keep_no_probe_out(closed: Service) -> None:
    async with http2.connected(closed.address) as connection:
        for stream in range(1, 100, 2):
            await connection.send(http2.call(stream, attacks.HEALTH_CHECK) + http2.body(stream, UNFINISHED, end=False))
        # All have begun once all but those that may be read have been given up.
        assert await connection.ended(50 - reading.MAX_SMALL_READS) >= 50 - reading.MAX_SMALL_READS
        for _ in range(5):
            assert await healthy(closed)


async def test_a_name_that_nobody_serves_may_be_watched(closed: Service) -> None:
    watch = probes(closed).Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


async def test_watches_are_bounded_and_do_not_hold_up_a_drain(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_WATCHES", 2)
    async with serving(router_of(), bundle) as service:
        request = health_pb2.HealthCheckRequest()
        watches = [probes(service).Watch(request) for _ in range(2)]
        assert [(await watch.read()).status for watch in watches] == [SERVING] * 2
        assert (await refusal(probes(service).Watch(request))).code is EXHAUSTED
        async with asyncio.timeout(PATIENCE):
            await service.server.drain(10 * PATIENCE)
        assert [(await watch.read()).status for watch in watches] == [health_pb2.HealthCheckResponse.NOT_SERVING] * 2


async def test_neither_a_reflection_nor_an_unfinished_check_holds_up_a_drain(closed: Service) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(closed.channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.read()
    async with http2.connected(closed.address) as connection, asyncio.timeout(PATIENCE):
        await connection.send(http2.call(1, attacks.HEALTH_CHECK) + http2.body(1, UNFINISHED, end=False))
        ended = asyncio.create_task(connection.status())
        for _ in range(5):
            assert await healthy(closed)
        await closed.server.drain(100 * PATIENCE)
        await ended
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("method", [attacks.DECIDE, attacks.HEALTH_CHECK, attacks.HEALTH_WATCH, attacks.REFLECTION])
async def test_the_text_of_an_unforeseen_error_reaches_nobody_and_is_counted(
    fake: Service, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def fails(_: object) -> bytes:
        raise RuntimeError("a secret")

    monkeypatch.setattr(reading, "next_message", fails)
    seen = await refusal(fake.channel.unary_stream(method)(b"", timeout=PATIENCE))
    assert seen.code is grpc.StatusCode.UNKNOWN and "secret" not in seen.message
    assert fake.observer.of(CallCompleted) == [CallCompleted(method.rpartition("/")[2], "UNKNOWN")]


class Stubborn:
    """A call whose message never comes, and whose reading ends only when it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.cancelled = False

    async def read(self) -> bytes:
        try:
            await asyncio.Event().wait()
            return b""
        finally:
            self.cancelled = True
            await self.may_end.wait()


async def test_a_message_that_is_just_given_up_fails_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SMALL_SECONDS", 0.01)
    reader, calls = reading.SmallReader(), [Stubborn() for _ in range(reading.MAX_SMALL_READS)]
    reads = [asyncio.create_task(reader.read(call, health_pb2.HealthCheckRequest)) for call in calls]
    await until(lambda: all(call.cancelled for call in calls))
    arrived = FakeContext(health_pb2.HealthCheckRequest(service="one"))
    assert await reader.read(arrived, health_pb2.HealthCheckRequest) == arrived.message
    for call in calls:
        call.may_end.set()
    refused = await asyncio.gather(*reads, return_exceptions=True)
    assert [type(error) for error in refused] == [Overloaded] + [InvalidRequest] * (len(calls) - 1)


async def test_reflection_is_bounded(closed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(closed.channel)
    long = reflection_pb2.ServerReflectionRequest(file_by_filename="x" * 10_000)
    call = stub.ServerReflectionInfo()
    await call.write(long)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is INVALID
    held = [stub.ServerReflectionInfo() for _ in range(reflection.MAX_CALLS)]
    for one in held:
        await one.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await one.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ServerReflectionInfo().read()
    assert caught.value.code() is EXHAUSTED
    assert await healthy(closed)


async def test_the_operators_port_takes_no_large_message(closed: Service) -> None:
    request = pb.PromoteModelRequest(path="x" * (1 << 20))
    assert (await refusal(closed.admin.PromoteModel(request, timeout=PATIENCE))).code in (
        EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
    )
    assert (await refusal(closed.admin.PromoteModel(request, timeout=PATIENCE, **bearer(TOKEN)))).code is EXHAUSTED
