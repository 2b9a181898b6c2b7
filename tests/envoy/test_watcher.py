"""What the router records of responses that a gateway shows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from router._gen import external_processor_pb2 as pb
from router.admission.tenants import Tenants
from router.bundle.manifest import Bundle
from router.domain import Completion, CountSource, FinishReason
from router.envoy.replies import NAMESPACE
from router.events import GatewayShown, Generated
from router.routing.router import BudgetRouter
from tests.envoy.conftest import KEYED, Asking, asking, body_of
from tests.envoy.test_tail import STREAM, USAGE, event, piece
from tests.support.ext_proc import told_message
from tests.support.fakes import ListLog, router_of

BEYOND = {"completion_tokens": 200, "completion_tokens_details": {"reasoning_tokens": 128}}
DECISION = "metadata.filter_metadata['budget_router']['decision-id']"


@pytest.fixture
def router() -> BudgetRouter:
    """A router that records what it is told."""
    return router_of()


@pytest.fixture
async def shown(bundle: Bundle, router: BudgetRouter) -> AsyncIterator[Asking]:
    """A gateway that shows responses."""
    async with asking(bundle, router, watched=True) as gateway:
        yield gateway


async def decided(gateway: Asking, **options: Any) -> str:
    """The id of a new decision."""
    (answer,) = await gateway.say(told_message(body_of()), **options)
    return answer.dynamic_metadata.fields[NAMESPACE].struct_value.fields["decision-id"].string_value


async def show(gateway: Asking, decision: str, *pieces: bytes, ends: bool = True, **options: Any) -> grpc.StatusCode:
    """Show a response piece by piece, as Envoy does without waiting; the status of the call."""
    call = gateway.call(**options)
    for at, one in enumerate(pieces):
        last = ends and at == len(pieces) - 1
        message = pb.ProcessingRequest(response_body=pb.HttpBody(body=one, end_of_stream=last), observability_mode=True)
        if not at and decision:
            message.attributes["envoy.filters.http.ext_proc"].fields[DECISION].string_value = decision
        await call.write(message)
    await call.done_writing()
    with suppress(grpc.aio.AioRpcError):
        assert await call.read() == pb.ProcessingResponse()  # Envoy reads no answer
    code: grpc.StatusCode = await call.code()
    return code


def recorded(router: BudgetRouter) -> list[Completion]:
    """The completions in the log."""
    return [completion for _, _, completion in router._log.completed]  # type: ignore[attr-defined]


def became(gateway: Asking) -> list[str]:
    """What became of the responses."""
    return [record.outcome for record in gateway.observer.of(GatewayShown)]


async def test_what_was_counted_is_recorded_as_after_generate(shown: Asking, router: BudgetRouter) -> None:
    decision = await decided(shown)
    assert await show(shown, decision, STREAM[:50], STREAM[50:]) is grpc.StatusCode.OK
    (end,) = recorded(router)
    assert (end.finish, end.budget.tokens, end.count_source) == (FinishReason.NATURAL, 128, CountSource.ENGINE)
    assert (end.prompt_tokens, end.thinking_tokens, end.answer_tokens) == (3, 40, 10)
    assert became(shown) == ["counted"]
    (record,) = router._observer.of(Generated)  # type: ignore[attr-defined]
    assert 0 < record.first_token_seconds <= record.seconds


@pytest.mark.parametrize(
    ("pieces", "ends", "outcome", "thought", "finish"),
    [
        ([event(**piece("4")), event(**piece("", "length"))], True, "no_usage", None, FinishReason.TRUNCATED),
        ([STREAM], False, "counted", 40, FinishReason.NATURAL),
        ([event(**piece("", "stop"), usage=USAGE | BEYOND)], True, "counted", 128, FinishReason.FORCED),
    ],
)
async def test_an_end_is_recorded_as_far_as_it_says_something(
    shown: Asking,
    router: BudgetRouter,
    pieces: list[bytes],
    ends: bool,
    outcome: str,
    thought: int,
    finish: FinishReason,
) -> None:
    await show(shown, await decided(shown), *pieces, ends=ends)
    (end,) = recorded(router)
    assert (end.thinking_tokens, end.finish) == (thought, finish)
    assert became(shown) == [outcome]


ODD = [b"", b"{", event(**piece("4")), event(**piece("", "stop"), usage=[1]), event(choices=[{"finish_reason": {}}])]


@pytest.mark.parametrize("odd", ODD, ids=str)
async def test_a_response_without_an_end_is_counted_and_not_recorded(
    shown: Asking, router: BudgetRouter, odd: bytes
) -> None:
    assert await show(shown, await decided(shown), odd) is grpc.StatusCode.OK
    assert (recorded(router), became(shown)) == ([], ["cut"])


async def test_a_response_is_recorded_once(shown: Asking, router: BudgetRouter) -> None:
    decision = await decided(shown)
    await asyncio.gather(*(show(shown, decision, STREAM) for _ in range(3)))
    assert len(router._observer.of(Generated)) == 1  # type: ignore[attr-defined]
    assert len(set(recorded(router))) == 1


async def test_a_decision_of_another_process_is_found_in_the_log_that_they_share(bundle: Bundle) -> None:
    log = ListLog()
    one, other = router_of(log=log), router_of(log=log)
    async with asking(bundle, one, watched=True) as decides, asking(bundle, other, watched=True) as shows:
        await show(shows, await decided(decides), STREAM)
    [(_, _, end)] = log.completed
    assert (end.thinking_tokens, became(shows)) == (40, ["counted"])


@pytest.mark.parametrize("decision", ["", "nobody's"])
async def test_of_an_unknown_decision_nothing_is_read(shown: Asking, router: BudgetRouter, decision: str) -> None:
    assert await show(shown, decision, STREAM) is grpc.StatusCode.OK
    assert (recorded(router), became(shown)) == ([], ["unknown"])


async def test_responses_are_not_read_where_nobody_asked_for_it(gateway: Asking) -> None:
    assert await show(gateway, await decided(gateway), STREAM) is grpc.StatusCode.OK
    assert became(gateway) == []


@pytest.mark.parametrize(
    ("whose", "shows", "code"),
    [
        ("of search", "of search", grpc.StatusCode.OK),
        ("of search", "of the gateway", grpc.StatusCode.OK),
        ("of the gateway", "of search", grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_a_tenant_shows_responses_of_its_own_and_a_gateway_those_of_all(
    bundle: Bundle, whose: str, shows: str, code: grpc.StatusCode
) -> None:
    router = router_of(tenants=KEYED)
    async with asking(bundle, router, tenants=Tenants(KEYED), watched=True) as gateway:
        decision = await decided(gateway, metadata=(("authorization", f"Bearer {whose}"),))
        assert await show(gateway, decision, STREAM, metadata=(("authorization", f"Bearer {shows}"),)) is code
    assert len(recorded(router)) == (code is grpc.StatusCode.OK)


async def test_only_so_many_responses_are_waited_for(
    shown: Asking, router: BudgetRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of older decisions have to be looked for in the log."""
    monkeypatch.setattr("router.envoy.watcher.MOST", 2)
    for decision in [await decided(shown) for _ in range(3)]:
        await show(shown, decision, STREAM)
    assert became(shown) == ["counted"] * 3
    assert len(router._observer.of(Generated)) == 2  # type: ignore[attr-defined]
