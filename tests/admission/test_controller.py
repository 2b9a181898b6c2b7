"""Who is let in, and what gives way under pressure."""

import asyncio
from collections.abc import Callable

import pytest

from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenant, Tenants
from router.domain import MaxLoss, MinQuality, Prompt, QualityTarget, RouteRequest, RoutingOptions
from router.errors import BackendUnavailable, Overloaded
from router.events import RequestShed
from tests.support.clock import Clock, settled
from tests.support.fakes import RecordingObserver

TWO_PERCENT = MaxLoss(0.02)


def asked(tenant: str = "a", target: QualityTarget = TWO_PERCENT) -> RouteRequest:
    return RouteRequest(Prompt.of("2 + 2 ="), RoutingOptions(target), tenant, "")


class Gate:
    """An admission with everything at hand."""

    def __init__(self, capacity: float = 100.0, **tenants: Tenant) -> None:
        self.clock = Clock()
        self.observer = RecordingObserver()
        self.queue = FairQueue(capacity, 1.0, self.clock)
        quotas = MemoryQuotas(self.clock)
        self.admission = Admission(Tenants(tenants), self.queue, quotas, self.observer, self.clock)

    async def run(self, tokens: float, used: float | None = None, tenant: str = "a") -> None:
        """A request from beginning to end."""
        async with self.admission.admitted(asked(tenant), tokens) as admitted:
            admitted.used = tokens if used is None else used

    @property
    def shed(self) -> list[RequestShed]:
        return self.observer.of(RequestShed)


async def test_a_tenant_stays_within_its_tokens_a_minute() -> None:
    gate = Gate(a=Tenant(tokens_per_minute=100))
    await gate.run(60)
    await gate.run(40)
    with pytest.raises(Overloaded) as caught:
        await gate.run(30)
    assert caught.value.cause == "quota"
    assert caught.value.retry_after == pytest.approx(18.0)
    assert gate.shed == [RequestShed("a", "quota")]
    await gate.run(1_000_000, tenant="b")
    gate.clock.now += 18.0
    await gate.run(30)


async def test_predictions_are_put_right_by_what_was_used() -> None:
    gate = Gate(a=Tenant(tokens_per_minute=100))
    for _ in range(5):
        await gate.run(50, used=10)
    with pytest.raises(Overloaded):
        await gate.run(60)
    gate = Gate(a=Tenant(tokens_per_minute=100))
    await gate.run(10, used=200)
    with pytest.raises(Overloaded) as caught:
        await gate.run(10)
    assert caught.value.retry_after == pytest.approx(66.0)


async def test_what_fails_before_anything_was_used_takes_nothing() -> None:
    gate = Gate(a=Tenant(streams=1, tokens_per_minute=100))
    for _ in range(3):
        with pytest.raises(BackendUnavailable):
            async with gate.admission.admitted(asked(), 100):
                raise BackendUnavailable("down")
    assert not gate.shed


async def test_a_tenant_stays_within_its_streams() -> None:
    gate = Gate(a=Tenant(streams=2))
    async with gate.admission.admitted(asked(), 1), gate.admission.admitted(asked(), 1):
        with pytest.raises(Overloaded) as caught:
            await gate.run(1)
        assert caught.value.cause == "quota"
    gate.clock.now += 1.0
    await gate.run(1)


async def test_after_a_refusal_nothing_is_scored_until_it_is_worth_trying() -> None:
    gate = Gate(a=Tenant(tokens_per_minute=100))
    await gate.run(100)
    gate.admission.reject_early("a")
    with pytest.raises(Overloaded):
        await gate.run(1)
    with pytest.raises(Overloaded) as caught:
        gate.admission.reject_early("a")
    assert 0 < caught.value.retry_after <= 1
    gate.admission.reject_early("b")
    gate.clock.now += 1.0
    gate.admission.reject_early("a")


async def test_what_is_refused_for_want_of_capacity_uses_no_quota() -> None:
    gate = Gate(capacity=10, a=Tenant(tokens_per_minute=100, streams=2))
    async with gate.admission.admitted(asked("b"), 10):
        for _ in range(10):
            with pytest.raises(Overloaded) as caught:
                async with gate.admission.admitted(asked(), 100, patience=0):
                    raise AssertionError
            assert caught.value.cause == "wait"
    await gate.run(100)


@pytest.mark.parametrize(
    ("target", "relaxed"),
    [
        (MaxLoss(0.02), lambda by: MaxLoss(0.02 + by)),
        (MaxLoss(0.02, per_prompt=True), lambda by: MaxLoss(0.02 + by, per_prompt=True)),
        (MinQuality(0.9), lambda by: MinQuality(0.9 - by)),
    ],
)
async def test_targets_give_way_step_by_step_within_what_the_tenant_allows(
    target: QualityTarget, relaxed: Callable[[float], QualityTarget]
) -> None:
    gate = Gate(a=Tenant(relax=0.03), strict=Tenant())
    steps = []
    held = []
    for tokens in (50, 40, 12, 20):

        async def hold(tokens: float = tokens) -> None:
            async with gate.queue.turn("load", 1, tokens):
                await asyncio.Event().wait()

        held.append(asyncio.create_task(hold()))
        await settled()
        gate.clock.now += 100.0
        assert gate.admission.relaxed(asked("strict", target)) == asked("strict", target)
        found = gate.admission.relaxed(asked(target=target)).options
        assert found.target == relaxed(found.target_relaxation)
        steps.append(round(found.target_relaxation, 9))
    assert steps == [0, 0.01, 0.02, 0.03]
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    gate.clock.now += 100.0
    assert gate.admission.relaxed(asked(target=target)).options.target_relaxation == 0


async def test_targets_stay_targets() -> None:
    gate = Gate(capacity=1, a=Tenant(relax=1.0))
    async with gate.queue.turn("load", 1, 1):
        gate.clock.now += 100.0
        assert gate.admission.level == 2
        assert gate.admission.relaxed(asked(target=MaxLoss(0.9))).options.target == MaxLoss(1.0)
        assert gate.admission.relaxed(asked(target=MinQuality(0.2))).options.target == MinQuality(0.01)
