"""The blocking client against a real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from router.bundle.manifest import Bundle
from router.domain import ReasoningDelta
from router.errors import RemoteError
from router.rpc.client import Client, Wishes
from tests.conftest import free_port
from tests.rpc.conftest import Service, serving, until
from tests.support.fakes import FakeBackend, Hang, ListLog, router_of


@pytest.fixture
def client(fake: Service) -> Iterator[Client]:
    """A client of `fake`; its calls block, so they are made on a thread."""
    client = Client(fake.address, timeout=30)
    yield client
    client.close()


async def test_a_decision_is_plain_data(client: Client) -> None:
    decision = await asyncio.to_thread(client.decide, "2 + 2 =")
    assert decision["rung"] in [forecast["rung"] for forecast in decision["forecasts"]]
    assert decision["source"] == "DECISION_SOURCE_CLASSIFIER"
    assert decision["certified"] is True and decision["meets_target"] is True
    assert decision["budget_tokens"] == int(decision["rung"])


async def test_what_is_false_is_told_and_what_is_absent_is_not(client: Client) -> None:
    decision = await asyncio.to_thread(client.decide, "2 + 2 =", Wishes(rung="16"))
    assert decision["certified"] is False
    assert "predicted_quality" not in decision and "certificate" not in decision
    assert decision["forecasts"] == []


async def test_events_have_one_key_each(client: Client) -> None:
    events = await asyncio.to_thread(lambda: list(client.generate("2 + 2 =", Wishes(max_loss=0.05))))
    assert [next(iter(event)) for event in events] == [
        "decision", "reasoning", "reasoning", "content", "content", "completion",
    ]  # fmt: skip
    assert all(len(event) == 1 for event in events)
    assert events[-1]["completion"]["thinking_tokens"] == 2


@pytest.mark.parametrize(
    ("wishes", "rung"),
    [
        (Wishes(rung="32"), "32"),
        (Wishes(max_loss=0), "256"),
        (Wishes(max_loss=0.05), "128"),
        (Wishes(min_quality=0.5), "32"),
        (Wishes(min_quality=0.5, floor=33), "64"),
        (Wishes(max_loss=0.05, ceiling=64), "64"),
        (Wishes(min_quality=0.99), "256"),
        (Wishes(min_quality=0.99, fail_fast=True), "128"),
    ],
    ids=str,
)
async def test_wishes_reach_the_policy(client: Client, wishes: Wishes, rung: str) -> None:
    assert (await asyncio.to_thread(client.decide, "2 + 2 =", wishes))["rung"] == rung


async def test_temperature_reaches_the_backend(client: Client, backend: FakeBackend) -> None:
    await asyncio.to_thread(lambda: list(client.generate("2 + 2 =", temperature=0.7)))
    assert backend.asked[0].sampling.temperature == 0.7


async def test_a_report_reaches_the_log(client: Client, log: ListLog) -> None:
    decision = await asyncio.to_thread(client.decide, "2 + 2 =")
    await asyncio.to_thread(client.report, decision["decision_id"], 1.0, "verifier")
    assert [(o.decision_id, o.correct) for o in log.outcomes] == [(decision["decision_id"], 1.0)]


async def test_errors_carry_code_and_fields(client: Client) -> None:
    with pytest.raises(RemoteError) as caught:
        await asyncio.to_thread(client.decide, " ")
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.fields == ["messages[0].content"]
    with pytest.raises(RemoteError) as caught:
        await asyncio.to_thread(client.report, "unknown", 1.0, "user")
    assert (caught.value.code, caught.value.fields) == ("NOT_FOUND", ["decision_id"])


async def test_errors_of_a_stream_are_translated_too(client: Client) -> None:
    with pytest.raises(RemoteError) as caught:
        await asyncio.to_thread(lambda: list(client.generate("x", Wishes(rung="17"))))
    assert (caught.value.code, caught.value.fields) == ("NOT_FOUND", ["options.rung"])


async def test_a_serving_server_is_seen(client: Client) -> None:
    assert await asyncio.to_thread(client.serving) is True


async def test_a_server_that_is_not_ready_is_seen(bundle: Bundle) -> None:
    async with serving(router_of(backend=FakeBackend(is_ready=False)), bundle) as service:
        client = Client(service.address, timeout=30)
        assert await asyncio.to_thread(client.serving) is False
        client.close()


async def test_no_server_is_unavailable() -> None:
    client = Client(f"127.0.0.1:{free_port()}", timeout=5)
    with pytest.raises(RemoteError) as caught:
        await asyncio.to_thread(client.decide, "2 + 2 =")
    assert caught.value.code == "UNAVAILABLE" and caught.value.fields == []
    client.close()


async def test_waiting_for_a_server_that_never_comes_ends() -> None:
    client = Client(f"127.0.0.1:{free_port()}")
    with pytest.raises(RemoteError) as caught:
        await asyncio.to_thread(client.serving, 0.3)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    client.close()


@pytest.fixture
async def hanging(bundle: Bundle) -> AsyncIterator[tuple[Service, FakeBackend]]:
    """A service whose streams never end."""
    backend = FakeBackend([ReasoningDelta("hm"), Hang()])
    async with serving(router_of(backend=backend), bundle) as service:
        yield service, backend


async def test_every_stream_ends_within_the_timeout(hanging: tuple[Service, FakeBackend]) -> None:
    client = Client(hanging[0].address, timeout=0.5)
    with pytest.raises(RemoteError) as caught:
        await asyncio.to_thread(lambda: list(client.generate("x")))
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED.name
    client.close()


async def test_a_stream_given_up_stops_the_backend(hanging: tuple[Service, FakeBackend]) -> None:
    service, backend = hanging
    client = Client(service.address, timeout=30)

    def give_up() -> None:
        events = client.generate("x")
        assert "decision" in next(events) and "reasoning" in next(events)
        events.close()  # type: ignore[attr-defined]

    await asyncio.to_thread(give_up)
    await until(lambda: backend.cancelled == 1)
    client.close()
