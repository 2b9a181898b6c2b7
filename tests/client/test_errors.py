"""Statuses become exceptions that say what, where and when again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from router import client as package
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.bundle.manifest import Bundle
from router.client import ClientError, ResourceExhausted, Unavailable
from router.client.errors import KINDS
from router.errors import BackendUnavailable, Overloaded, RouterError
from router.rpc.status import to_status
from tests.client.conftest import CLIENTS, connected, streamed
from tests.rpc.conftest import serving
from tests.support.fakes import router_of


class Refusing(pb_grpc.BudgetRouterServiceServicer):
    """Answers every call with one status."""

    def __init__(self, status: Any) -> None:
        self.status = status

    async def Decide(self, request: Any, context: Any) -> None:
        if isinstance(self.status, grpc.StatusCode):
            await context.abort(self.status, "said")
        await context.abort_with_status(self.status)


@asynccontextmanager
async def refusing(status: Any) -> AsyncIterator[str]:
    """The address of a service that refuses everything."""
    server = grpc.aio.server()
    pb_grpc.add_BudgetRouterServiceServicer_to_server(Refusing(status), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"], ids=lambda code: code.name)
async def test_each_status_is_an_error_of_its_own_or_the_general_one(kind: str, code: grpc.StatusCode) -> None:
    async with refusing(code) as address, connected(kind, address, timeout=30) as client:
        with pytest.raises(ClientError) as caught:
            await client.decide("x")
    assert caught.value.code == code.name
    assert type(caught.value) is KINDS.get(code.name, ClientError)
    assert (caught.value.field, caught.value.retry_after) == (None, None)
    assert isinstance(caught.value, RouterError)


def test_every_kind_can_be_imported_and_knows_its_code() -> None:
    for code, kind in KINDS.items():
        assert getattr(package, kind.__name__) is kind
        assert kind.__name__.lower() == code.replace("_", "").lower()
        assert kind("x").code == code


@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_overloaded_service_says_when_again(kind: str) -> None:
    overloaded = to_status(Overloaded("quota", "spent", retry_after=7.5))
    async with refusing(overloaded) as address, connected(kind, address, timeout=30) as client:
        with pytest.raises(ResourceExhausted, match=r"^spent$") as caught:
            await client.decide("x")
    assert caught.value.retry_after == 7.5


async def test_a_backend_that_refuses_connections_is_not_taken_for_a_missing_service() -> None:
    down = to_status(BackendUnavailable("engine: Connection refused"))
    async with refusing(down) as address, connected("blocking", address, timeout=30) as client:
        with pytest.raises(Unavailable, match=r"^engine: Connection refused$"):
            await client.decide("x")


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_stream_is_refused_alike(bundle: Bundle, kind: str) -> None:
    async with serving(router_of(), bundle, max_calls=0) as service, connected(kind, service.address) as client:
        with pytest.raises(ResourceExhausted) as caught:
            await streamed(client, "x")
    assert caught.value.retry_after == 1
