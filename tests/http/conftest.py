"""A real HTTP server on a free port, with fakes behind it or the models that ship."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from router.admission.identity import TenantGuard
from router.admission.permits import Places
from router.admission.tenants import Tenants
from router.backends.pocket_model import PocketModel
from router.bundle.manifest import Bundle
from router.http.boundary import Boundary
from router.http.endpoints import Endpoints
from router.http.reading import BodyReader
from router.http.server import HttpServer
from router.requests.limits import MAX_LARGE_BYTES, MAX_MESSAGE_BYTES
from router.routing.router import BudgetRouter
from router.scoring.onnx import OnnxClassifier
from router.telemetry.tracing import passed_on
from tests.rpc.conftest import embedded
from tests.support.fakes import LIMITS, FakeBackend, ListLog, RecordingObserver, router_of

QUESTION = [{"role": "user", "content": "2 + 2 ="}]
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


@dataclass(frozen=True)
class Front:
    """A running server, and what is behind it."""

    server: HttpServer
    places: Places
    router: BudgetRouter
    observer: RecordingObserver
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def client(self, **options: Any) -> AsyncOpenAI:
        """OpenAI's own client; it must be closed."""
        given: dict[str, Any] = {"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0} | options
        return AsyncOpenAI(**given)

    async def post(self, path: str = CHAT, headers: dict[str, str] | None = None, **body: Any) -> tuple[int, Any]:
        """The status of a good request but for what is given, and the JSON that it is answered with."""
        asked = {"messages": QUESTION} | body if path == CHAT else body
        async with self.session.post(self.url + path, json=asked, headers=headers) as response:
            return response.status, await response.json()


@asynccontextmanager
async def fronting(
    router: BudgetRouter,
    *,
    tenants: Tenants | None = None,
    max_calls: int = 1_000,
    max_bytes: int = MAX_MESSAGE_BYTES,
    window_seconds: float = 0.0,
) -> AsyncIterator[Front]:
    """The router behind an HTTP server of its own."""
    observer, places = RecordingObserver(), Places(max_calls, MAX_LARGE_BYTES)
    boundary = Boundary(
        Endpoints(router, LIMITS, router.health, window_seconds).routes,
        TenantGuard(tenants or Tenants({})),
        places,
        BodyReader(max_bytes, max_calls),
        observer,
        passed_on,
    )
    server = HttpServer(boundary, "127.0.0.1:0", None, max_calls)
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Front(server, places, router, observer, session)
    finally:
        await server.drain(0)


@pytest.fixture
def backend() -> FakeBackend:
    """The backend of `fake`."""
    return FakeBackend()


@pytest.fixture
def log() -> ListLog:
    """The outcome log of `fake`."""
    return ListLog()


@pytest.fixture
async def fake(backend: FakeBackend, log: ListLog) -> AsyncIterator[Front]:
    """A server with fakes behind it."""
    async with fronting(router_of(backend=backend, log=log)) as front:
        yield front


@pytest.fixture
async def pocket(bundle: Bundle, classifier: OnnxClassifier, pocket_model: PocketModel) -> AsyncIterator[Front]:
    """A server with everything embedded."""
    router, backend = embedded(bundle, classifier, pocket_model)
    async with fronting(router) as front:
        yield front
    backend.close()
