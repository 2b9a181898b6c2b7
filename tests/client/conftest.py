"""Both clients against a real server of fakes: one test asks the two."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router.bundle.manifest import Bundle
from router.client import AsyncClient, Client, Event
from tests.rpc.conftest import Service, serving
from tests.support.fakes import FakeBackend, ListLog, router_of

CLIENTS = ("blocking", "asyncio")


class Threaded:
    """The blocking client, each call on a thread of its own: it has what `AsyncClient` has."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            return await asyncio.to_thread(getattr(self.client, name), *arguments, **options)

        return call


@asynccontextmanager
async def connected(kind: str, address: str, **options: Any) -> AsyncIterator[Any]:
    """A client of that kind."""
    if kind == "asyncio":
        async with AsyncClient(address, **options) as client:
            yield client
    else:
        with Client(address, **options) as blocking:
            yield Threaded(blocking)


async def streamed(client: Any, *arguments: Any, **options: Any) -> list[Event]:
    """All events of `generate`."""
    if isinstance(client, AsyncClient):
        return [event async for event in client.generate(*arguments, **options)]
    blocking: Client = client.client
    return await asyncio.to_thread(lambda: list(blocking.generate(*arguments, **options)))


@pytest.fixture
def backend() -> FakeBackend:
    """What answers."""
    return FakeBackend()


@pytest.fixture
def log() -> ListLog:
    """Where outcomes go."""
    return ListLog()


@pytest.fixture
async def service(bundle: Bundle, backend: FakeBackend, log: ListLog) -> AsyncIterator[Service]:
    """A service of fakes."""
    async with serving(router_of(backend=backend, log=log), bundle) as running:
        yield running


@pytest.fixture(params=CLIENTS)
async def client(request: pytest.FixtureRequest, service: Service) -> AsyncIterator[Any]:
    """A client of `service`, of either kind."""
    async with connected(request.param, service.address, timeout=30) as connection:
        yield connection
