"""Overload as callers see it: refusals with a time to try again, deadlines, brownout, traces that go on."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from router._gen import budget_router_pb2 as pb
from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenant, Tenants
from router.bundle.manifest import Bundle
from router.domain import ReasoningDelta
from router.events import RequestShed
from router.telemetry import tracing
from tests.rpc.conftest import Service, decide, generate, refusal, serving
from tests.support.fakes import FakeBackend, FakeClassifier, Hang, ListLog, RecordingObserver, router_of, until

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


class Overload:
    """A service with room for one request, taken by one that hangs."""

    def __init__(self, patience: float = 0.05, **tenants: Tenant) -> None:
        self.backend = FakeBackend([ReasoningDelta("hm"), Hang()])
        self.classifier = FakeClassifier()
        self.observer = RecordingObserver()
        self.log = ListLog()
        self.queue = FairQueue(1, patience)
        self.tenants = Tenants(tenants or {"default": Tenant()})
        self.admission = Admission(self.tenants, self.queue, MemoryQuotas(), self.observer)

    @asynccontextmanager
    async def serving(self, bundle: Bundle) -> AsyncIterator[Service]:
        parts: Mapping[str, Any] = {"backend": self.backend, "classifier": self.classifier, "log": self.log}
        names = ["default", "other"]
        router = router_of(**parts, observer=self.observer, admission=self.admission, tenants=names)
        async with serving(router, bundle) as service:
            holder = service.routing.Generate(generate("first"))
            await holder.read()
            await until(lambda: self.backend.open == 1)
            yield service
            holder.cancel()


async def test_a_caller_who_finds_no_room_learns_when_to_try_again(bundle: Bundle) -> None:
    overload = Overload()
    async with overload.serving(bundle) as service:
        seen = await refusal(service.routing.Generate(generate("second")))
        assert (seen.code, seen.reason) == (EXHAUSTED, "Overloaded")
        assert seen.retry_seconds is not None
        assert overload.observer.of(RequestShed) == [RequestShed("default", "wait")]
        assert (await service.routing.Decide(decide("third"))).decision.rung, "deciding takes no tokens"


async def test_a_quota_that_is_used_up_refuses_before_any_work(bundle: Bundle) -> None:
    overload = Overload(default=Tenant(streams=1), other=Tenant())
    async with overload.serving(bundle) as service:
        asked = len(overload.classifier.asked)
        for _ in range(5):
            assert (await refusal(service.routing.Generate(generate("second")))).code is EXHAUSTED
        assert len(overload.classifier.asked) <= asked + 1, "only the first one was scored"
        assert {shed.cause for shed in overload.observer.of(RequestShed)} == {"quota"}


async def test_nothing_runs_for_a_caller_whose_time_is_up(bundle: Bundle) -> None:
    overload = Overload(patience=60)
    async with overload.serving(bundle) as service:
        call = service.routing.Generate(generate("second"), timeout=0.2)
        assert (await refusal(call)).code in (grpc.StatusCode.DEADLINE_EXCEEDED, EXHAUSTED)
        await until(lambda: overload.queue.queued == 0)
        options = pb.RoutingOptions(max_latency=Duration(nanos=150_000_000))
        assert (await refusal(service.routing.Generate(generate("third", options=options)))).code is EXHAUSTED
        assert len(overload.backend.asked) == 1


async def test_a_caller_who_leaves_the_queue_makes_room(bundle: Bundle) -> None:
    overload = Overload(patience=60)
    async with overload.serving(bundle) as service:
        waiting = [service.routing.Generate(generate(str(i))) for i in range(5)]
        tasks = [asyncio.create_task(call.read()) for call in waiting]
        await until(lambda: overload.queue.queued == 5)
        for call in waiting:
            call.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: overload.queue.queued == 0)


async def test_every_reply_says_how_far_its_target_gave_way(bundle: Bundle) -> None:
    overload = Overload(patience=60, default=Tenant(relax=0.03), other=Tenant())
    async with overload.serving(bundle) as service:
        waiting = service.routing.Generate(generate("second"))
        task = asyncio.create_task(waiting.read())
        async with asyncio.timeout(30):
            while overload.admission.level < 3:  # noqa: ASYNC110  what is waited for is time
                await asyncio.sleep(0.05)
        decision = (await service.routing.Decide(decide("third"))).decision
        assert decision.relaxed == 0.03 and abs(decision.max_loss - 0.08) < 1e-9
        strict = (await service.routing.Decide(decide("third", tenant="other"))).decision
        assert strict.relaxed == 0 and strict.max_loss == 0.05
        told = await service.routing.Explain(pb.ExplainRequest(decision_id=decision.decision_id))
        assert any("overloaded" in sentence for sentence in told.sentences)
        waiting.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_callers_trace_goes_on_to_the_backend(bundle: Bundle) -> None:
    seen: list[Mapping[str, str]] = []

    class Traced(FakeBackend):
        def stream(self, request: Any) -> Any:
            seen.append(tracing.carried.get())
            return super().stream(request)

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving(router_of(backend=Traced()), bundle) as service:
        for metadata in ((("traceparent", parent), ("other", "header")), ()):
            assert [e async for e in service.routing.Generate(generate(), metadata=metadata)]
    assert seen == [{"traceparent": parent}, {}]
