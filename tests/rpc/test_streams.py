"""Streams: cancellation, deadlines, failures, and many at once."""

import asyncio
from typing import Any

import grpc
import pytest

from router._gen import budget_router_pb2 as pb
from router.backends.pocket_model import PocketModel
from router.backends.replica import Replica
from router.backends.replicas import TRIES, Replicas
from router.bundle.manifest import Bundle
from router.domain import ContentDelta, ReasoningDelta
from router.errors import BackendError, BackendUnavailable
from router.events import Degraded
from router.rpc.connections import MAX_CONNECTION_STREAMS
from router.scoring.onnx import OnnxClassifier
from tests.rpc.conftest import Service, decide, embedded, generate, refusal, serving
from tests.support.fakes import (
    THINKING,
    UNAVAILABLE,
    FakeBackend,
    Hang,
    ListLog,
    RecordingObserver,
    completion_of,
    router_of,
    until,
    verified,
)

SECRET = "secret of the prompt"
MANY = MAX_CONNECTION_STREAMS


async def complete(service: Service, request: pb.GenerateRequest) -> pb.Completion:
    """Read a stream to its end, which must be proper."""
    events = [event async for event in service.routing.Generate(request)]
    assert events[0].WhichOneof("event") == "decision"
    done: pb.Completion = events[-1].completion
    assert events[-1].WhichOneof("event") == "completion"
    return done


async def other_tasks() -> set["asyncio.Task[Any]"]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_cancelling_reaches_the_backend(bundle: Bundle) -> None:
    backend = FakeBackend([ReasoningDelta("hm"), Hang()])
    async with serving(router_of(backend=backend), bundle) as service:
        call = service.routing.Generate(generate())
        for _ in range(2):
            await call.read()
        assert backend.open == 1
        call.cancel()
        await until(lambda: backend.open == 0)
    assert (backend.cancelled, backend.ended) == (1, 0)


async def test_cancelling_before_the_first_token_reaches_the_backend(bundle: Bundle) -> None:
    backend = FakeBackend([Hang()])
    async with serving(router_of(backend=backend), bundle) as service:
        call = service.routing.Generate(generate())
        await until(lambda: backend.open == 1)
        call.cancel()
        await until(lambda: backend.open == 0)
    assert backend.cancelled == 1 and len(backend.asked) == 1


async def test_a_cancelled_stream_is_not_logged_as_completed(bundle: Bundle) -> None:
    backend, log = FakeBackend([ReasoningDelta("hm"), Hang()]), ListLog()
    async with serving(router_of(backend=backend, log=log), bundle) as service:
        call = service.routing.Generate(generate())
        await until(lambda: backend.open == 1)
        call.cancel()
        await until(lambda: backend.open == 0)
    assert len(log.decided) == 1 and log.completed == []


async def test_cancelling_stops_the_pocket_reasoner(pocket: Service) -> None:
    before = len(await other_tasks())
    options = pb.RoutingOptions(rung=pocket.ladder.rungs[-1].name, min_thinking_tokens=100)
    call = pocket.routing.Generate(generate(options=options))
    for _ in range(3):
        await call.read()
    call.cancel()
    await until(lambda: len(asyncio.all_tasks()) - 1 <= before)
    await complete(pocket, generate(options=pb.RoutingOptions(rung=pocket.ladder.rungs[0].name)))


async def test_a_deadline_mid_stream_stops_the_backend(bundle: Bundle) -> None:
    backend = FakeBackend([ReasoningDelta("hm"), Hang()])
    async with serving(router_of(backend=backend), bundle) as service:
        seen = await refusal(service.routing.Generate(generate(), timeout=0.3))
        await until(lambda: backend.open == 0)
    assert seen.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert backend.cancelled == 1


async def test_the_calls_deadline_bounds_the_budget(fake: Service) -> None:
    unhurried = [e async for e in fake.routing.Generate(generate(options=pb.RoutingOptions(max_loss=0)))]
    hurried = [e async for e in fake.routing.Generate(generate(options=pb.RoutingOptions(max_loss=0)), timeout=0.5)]
    assert hurried[0].decision.budget_tokens < unhurried[0].decision.budget_tokens


@pytest.mark.parametrize("started", [False, True], ids=["before the first token", "mid-stream"])
async def test_an_unexpected_error_is_unknown_without_its_text(bundle: Bundle, started: bool) -> None:
    script = [ReasoningDelta("hm")] * started + [ValueError(SECRET)]
    backend = FakeBackend(script)
    async with serving(router_of(backend=backend), bundle) as service:
        seen = await refusal(service.routing.Generate(generate()))
        assert seen.code is grpc.StatusCode.UNKNOWN
        assert SECRET not in seen.message and "Traceback" not in seen.message and "ValueError" not in seen.message
        assert (await service.routing.Decide(decide())).decision.rung
    assert len(backend.asked) == 1 and backend.open == 0


async def test_a_failed_backend_is_unavailable_with_a_time_to_retry(bundle: Bundle) -> None:
    backend = FakeBackend([BackendError("backend: nonsense")])
    async with serving(router_of(backend=backend), bundle) as service:
        seen = await refusal(service.routing.Generate(generate()))
    assert seen.code is grpc.StatusCode.UNAVAILABLE
    assert seen.reason == "BackendError"
    assert seen.retry_seconds
    assert len(backend.asked) == 1


async def test_an_unreachable_backend_is_tried_a_few_times(bundle: Bundle) -> None:
    backend, observer = FakeBackend([UNAVAILABLE]), RecordingObserver()
    replicas = Replicas([Replica("only", await verified(backend))], observer)
    async with serving(router_of(backend=replicas, observer=observer), bundle) as service:
        seen = await refusal(service.routing.Generate(generate()))
    assert (seen.code, seen.reason) == (grpc.StatusCode.UNAVAILABLE, "BackendUnavailable")
    assert seen.retry_seconds
    assert len(backend.asked) == TRIES
    assert [record.dependency for record in observer.of(Degraded)] == ["backend"] * (TRIES - 1)


async def test_a_backend_that_comes_back_is_not_noticed(bundle: Bundle) -> None:
    backend = FakeBackend([UNAVAILABLE], [ContentDelta("4"), completion_of()])
    replicas = Replicas([Replica("only", await verified(backend))], RecordingObserver())
    async with serving(router_of(backend=replicas), bundle) as service:
        await complete(service, generate())
    assert len(backend.asked) == 2


async def test_after_the_first_token_nothing_is_tried_again(bundle: Bundle) -> None:
    backend = FakeBackend([ReasoningDelta("hm"), BackendUnavailable("backend: gone")])
    async with serving(router_of(backend=backend), bundle) as service:
        seen = await refusal(service.routing.Generate(generate()))
    assert seen.code is grpc.StatusCode.UNAVAILABLE
    assert len(backend.asked) == 1


async def test_a_slow_reader_gets_everything(bundle: Bundle) -> None:
    pieces = [str(i) * 1_000 for i in range(300)]
    async with serving(
        router_of(backend=FakeBackend([*map(ContentDelta, pieces), completion_of()])), bundle
    ) as service:
        read = []
        async for event in service.routing.Generate(generate()):
            read.append(event.content)
            if len(read) % 100 == 0:
                await asyncio.sleep(0.05)
    assert read[1:-1] == pieces


LONG = 600.0
"""Seconds of a window that no test lives to see the end of."""


async def test_deltas_within_a_window_leave_together(bundle: Bundle) -> None:
    thought, answer = map(ReasoningDelta, ("so ", "it ", "is ")), map(ContentDelta, ("4", "2"))
    backend = FakeBackend([*thought, *answer, completion_of()])
    async with serving(router_of(backend=backend), bundle, window_seconds=LONG) as service:
        events = [event async for event in service.routing.Generate(generate())]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["decision", "reasoning", "reasoning", "content", "completion"]
    assert [event.reasoning + event.content for event in events[1:-1]] == ["so ", "it is ", "42"]


async def test_what_a_window_holds_back_leaves_before_an_error(bundle: Bundle) -> None:
    backend = FakeBackend([*map(ReasoningDelta, ("so ", "it ", "is ")), BackendError("backend: gone")])
    read = []
    async with serving(router_of(backend=backend), bundle, window_seconds=LONG) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for event in service.routing.Generate(generate()):
                read += [event.reasoning]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert read == ["", "so ", "it is "]


async def test_a_caller_who_leaves_within_a_window_stops_the_backend(bundle: Bundle) -> None:
    backend = FakeBackend([ReasoningDelta("so "), ReasoningDelta("it "), Hang()])
    async with serving(router_of(backend=backend), bundle, window_seconds=LONG) as service:
        call = service.routing.Generate(generate())
        for _ in range(2):
            await call.read()
        call.cancel()
        await until(lambda: backend.open == 0)
    assert (backend.cancelled, backend.ended) == (1, 0)


async def test_many_streams_at_once_all_complete_and_leave_no_task(bundle: Bundle) -> None:
    backend, log = FakeBackend(delay=0.01), ListLog()
    async with serving(router_of(backend=backend, log=log), bundle) as service:
        await complete(service, generate())
        before = await other_tasks()
        done = await asyncio.gather(*(complete(service, generate(f"prompt {i}")) for i in range(MANY)))
        await until(lambda: len(asyncio.all_tasks()) - 1 <= len(before))
    assert all(one.thinking_tokens == len(THINKING) for one in done)
    assert (backend.ended, backend.open, backend.cancelled) == (MANY + 1, 0, 0)
    assert len(log.decided) == len(log.completed) == MANY + 1


async def test_many_streams_cancelled_at_once_leave_nothing_behind(bundle: Bundle) -> None:
    backend = FakeBackend([ReasoningDelta("hm"), Hang()])
    async with serving(router_of(backend=backend), bundle) as service:
        await asyncio.sleep(0.1)  # the server's own tasks begin
        before = await other_tasks()
        calls = [service.routing.Generate(generate(f"prompt {i}")) for i in range(MANY)]
        await until(lambda: backend.open == MANY)
        for call in calls:
            call.cancel()
        await until(lambda: backend.open == 0)
        await until(lambda: len(asyncio.all_tasks()) - 1 <= len(before))
    assert backend.cancelled == MANY


async def test_many_streams_of_the_pocket_reasoner_all_complete(
    bundle: Bundle, classifier: OnnxClassifier, pocket_model: PocketModel
) -> None:
    router, backend = embedded(bundle, classifier, pocket_model)
    rungs = router.served_model("").policy.ladder.rungs[:2]
    sampling = pb.SamplingOptions(max_answer_tokens=3)
    requests = [
        generate(f"{i} + {i} =", options=pb.RoutingOptions(rung=rungs[i % 2].name), sampling=sampling)
        for i in range(MANY)
    ]
    async with serving(router, bundle) as service:
        await asyncio.sleep(0.1)  # the server's own tasks begin
        before = await other_tasks()
        done = await asyncio.gather(*(complete(service, request) for request in requests))
        await until(lambda: len(asyncio.all_tasks()) - 1 <= len(before))
    backend.close()
    assert all(one.thinking_tokens <= one.budget_tokens for one in done)


async def test_streams_of_the_pocket_reasoner_do_not_mix(pocket: Service) -> None:
    sampling = pb.SamplingOptions(max_answer_tokens=4)
    requests = [
        generate(f"Calculate {i}.", options=pb.RoutingOptions(rung=pocket.ladder.rungs[1].name), sampling=sampling)
        for i in range(8)
    ]

    async def text(request: pb.GenerateRequest) -> list[tuple[str, str]]:
        return [(e.reasoning, e.content) async for e in pocket.routing.Generate(request)]

    alone = [await text(request) for request in requests]
    assert await asyncio.gather(*map(text, requests)) == alone
