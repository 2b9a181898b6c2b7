"""So many calls may be under way; one tenant's flood leaves room for the others."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.admission.permits import KEPT, LargeMessages, TenantPermits
from router.admission.tenants import Key, Tenant, Tenants
from router.bundle.manifest import Bundle
from router.domain import ReasoningDelta
from router.errors import Draining, Overloaded
from tests.rpc.conftest import bearer, decide, generate, refusal, serving
from tests.support.fakes import FakeBackend, Hang, router_of, until

MOST = 80


@contextmanager
def held(room: TenantPermits | LargeMessages, *what: Any) -> Iterator[None]:
    """What is taken, for as long as the context lasts."""
    room.take(*what)
    try:
        yield
    finally:
        room.give_back(*what)


def flood(permits: TenantPermits, tenant: str | None, calls: ExitStack) -> int:
    """Calls that a tenant can have under way."""
    for number in range(1_000):
        try:
            calls.enter_context(held(permits, tenant))
        except Overloaded:
            return number
    raise AssertionError


def test_one_tenant_alone_takes_all_but_the_places_kept_for_others() -> None:
    permits = TenantPermits(MOST)
    with ExitStack() as calls:
        assert flood(permits, "flood", calls) == MOST - MOST // KEPT
        assert flood(permits, "quiet", calls) == 4
        assert flood(permits, "third", calls) == 3
    with ExitStack() as calls:
        assert flood(permits, "third", calls) == MOST - MOST // KEPT, "every place has come back"


def test_callers_without_credentials_share_all_places() -> None:
    with ExitStack() as calls:
        assert flood(TenantPermits(MOST), None, calls) == MOST
    with ExitStack() as calls:
        assert flood(TenantPermits(1), "one", calls) == 1


def test_while_draining_nothing_begins() -> None:
    permits = TenantPermits(MOST)
    permits.drain()
    with pytest.raises(Draining):
        permits.require_room("tenant")


@given(st.lists(st.sampled_from("ab"), max_size=300))
def test_a_tenant_without_calls_finds_room(tenants: list[str]) -> None:
    permits = TenantPermits(MOST)
    with ExitStack() as calls:
        for tenant in tenants:
            with suppress(Overloaded):
                calls.enter_context(held(permits, tenant))
        calls.enter_context(held(permits, "quiet"))


async def test_a_tenant_that_floods_keeps_nobody_out(bundle: Bundle) -> None:
    tenants = {name: Tenant(keys=(Key(sha256=sha256(name.encode()).hexdigest()),)) for name in ("flood", "quiet")}
    backend = FakeBackend([ReasoningDelta("hm"), Hang()])
    router = router_of(backend=backend, tenants=list(tenants))
    async with serving(router, bundle, max_calls=16, tenants=Tenants(tenants)) as service:
        streams = [service.routing.Generate(generate(str(i)), **bearer("flood")) for i in range(14)]
        for stream in streams:
            await stream.read()
        await until(lambda: backend.open == 14)
        seen = await refusal(service.routing.Decide(decide(), **bearer("flood")))
        assert seen.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await service.routing.Decide(decide(), **bearer("quiet"))).decision.rung
        for stream in streams:
            stream.cancel()


def test_large_messages_share_their_memory_and_one_tenant_has_half() -> None:
    messages = LargeMessages(100, large=10)
    with held(messages, "one", 10), held(messages, "one", 11), held(messages, "one", 39):
        for tenant, size in (("one", 11), ("other", 51)):
            with pytest.raises(Overloaded), held(messages, tenant, size):
                pass
        with held(messages, "one", 10), held(messages, "other", 50):  # small ones are not counted
            pass
    with held(messages, "one", 500), pytest.raises(Overloaded), held(messages, "other", 11):
        pass  # where nothing else is under way, any message has room
    with held(messages, "one", 50), held(messages, "other", 50):
        pass
