"""A real server on a free port and a real stub, once with fakes, once with the models that ship."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import DEFAULT, Tenants
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.bundle.manifest import Bundle
from router.domain import BudgetLadder, Enforcement
from router.learning.overview import Overview
from router.requests.limits import MAX_LARGE_BYTES, MAX_MESSAGE_BYTES
from router.routing.chooser import Chooser
from router.routing.explain import Explainer
from router.routing.hot_swap import HotSwap
from router.routing.pins import MemoryPins
from router.routing.policy import LatencyProfile, Policy
from router.routing.router import BudgetRouter
from router.routing.served_model import ServedModel
from router.rpc.admin import AdminServicer
from router.rpc.boundary import Boundary
from router.rpc.identity import OperatorGuard, TenantGuard
from router.rpc.server import Foreign, RouterServer
from router.rpc.server import Service as Routed
from router.rpc.servicer import BudgetRouterServicer
from router.scoring.cache_key import ScoreKeys
from router.scoring.memory_cache import MemoryCache
from router.scoring.onnx import OnnxClassifier
from router.scoring.scorer import Scorer
from router.scoring.trial import require_bounded
from router.serving.keeper import Keeper
from tests.conftest import MODELS
from tests.support.fakes import LIMITS, DictCache, FakeBackend, ListLog, RecordingObserver, router_of

TOKEN = "token of the tests"
PATIENCE = 30.0
"""Seconds that anything in a test may take, on busy cores."""

ROUTING = "/budget_router.v1.BudgetRouterService"
ADMIN = "/budget_router.v1.BudgetRouterAdminService"


@dataclass(frozen=True)
class Service:
    """Running servers, and connections to them."""

    server: RouterServer
    admin_server: RouterServer
    channel: Any
    admin_channel: Any
    router: BudgetRouter
    observer: RecordingObserver

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def admin_address(self) -> str:
        return f"127.0.0.1:{self.admin_server.port}"

    @property
    def routing(self) -> Any:
        return pb_grpc.BudgetRouterServiceStub(self.channel)

    @property
    def admin(self) -> Any:
        return pb_grpc.BudgetRouterAdminServiceStub(self.admin_channel)

    @property
    def ladder(self) -> BudgetLadder:
        return self.router.served_model("").policy.ladder

    async def send(self, method: str, data: bytes) -> list[bytes]:
        """The replies to hand-made bytes."""
        if method.endswith("/Generate"):
            return [reply async for reply in self.channel.unary_stream(method)(data, timeout=PATIENCE)]
        channel = self.admin_channel if method.startswith(ADMIN) else self.channel
        return [await channel.unary_unary(method)(data, timeout=PATIENCE)]


@dataclass(frozen=True)
class Refusal:
    """An error status and its details."""

    code: grpc.StatusCode
    message: str
    fields: list[str] = field(default_factory=list)
    reason: str = ""
    retry_seconds: int | None = None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> "Refusal":
        status = Status()
        metadata: Any = error.trailing_metadata()
        for key, value in metadata:
            if key == "grpc-status-details-bin":
                status.ParseFromString(value if isinstance(value, bytes) else value.encode())
        bad, info, retry = BadRequest(), ErrorInfo(), RetryInfo()
        unpacked = [detail.Unpack(kind) for detail in status.details for kind in (bad, info, retry)]
        assert sum(unpacked) == len(status.details)
        return cls(
            error.code(),
            error.details() or "",
            [violation.field for violation in bad.field_violations],
            info.reason,
            retry.retry_delay.seconds if retry.HasField("retry_delay") else None,
        )


async def refusal(call: Any) -> Refusal:
    """How a call ends that must not succeed; a stream is read up to there."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if isinstance(call, grpc.aio.UnaryStreamCall):
            _ = [reply async for reply in call]
        else:
            await call
    return Refusal.of(caught.value)


def user(text: str = "2 + 2 =") -> list[pb.Message]:
    """A single user message."""
    return [pb.Message(role=pb.ROLE_USER, content=text)]


def decide(text: str = "2 + 2 =", **fields: Any) -> pb.DecideRequest:
    """A good request, but for what is given."""
    return pb.DecideRequest(**{"messages": user(text)} | fields)


def generate(text: str = "2 + 2 =", **fields: Any) -> pb.GenerateRequest:
    """A good request, but for what is given."""
    return pb.GenerateRequest(**{"messages": user(text)} | fields)


def corrupt(message: Message, good: bytes, bad: bytes) -> bytes:
    """A message's bytes with some of them replaced by as many others."""
    data = message.SerializeToString()
    assert len(good) == len(bad) and data.count(good) == 1
    return data.replace(good, bad)


def bearer(token: str) -> Mapping[str, Any]:
    """Credentials for the admin service."""
    return {"metadata": (("authorization", f"Bearer {token}"),)}


@asynccontextmanager
async def serving(
    router: BudgetRouter,
    bundle: Bundle,
    *,
    max_calls: int = 1_000,
    token: str = TOKEN,
    tenants: Tenants | None = None,
    swaps: Mapping[str, HotSwap] | None = None,
    max_bytes: int = MAX_MESSAGE_BYTES,
    max_large_bytes: int = MAX_LARGE_BYTES,
    beside: Sequence[Foreign] = (),
    learning: Callable[[], Overview] = Overview,
    window_seconds: float = 0.0,
) -> AsyncIterator[Service]:
    """The router behind a server of its own."""
    cache: Any = router.served_model("").scorer.cache  # whatever it is, it can be flushed
    swaps = {
        served.model: HotSwap(
            MODELS / "pocket-router", served.model, _unchanged(served), require_bounded, router, RecordingObserver()
        )
        for served in router.served_models
    }
    admin = Routed.admin(AdminServicer(router, swaps, cache.flush, learning))
    archive: Any = router._log  # those of the tests find what they keep
    routing = Routed.routing(
        BudgetRouterServicer(router, Explainer(router, archive), LIMITS, window_seconds), max_bytes
    )
    observer = RecordingObserver()
    boundaries = [
        Boundary(TenantGuard(tenants or Tenants({})), max_calls, observer, max_large_bytes=max_large_bytes),
        Boundary(OperatorGuard(token), max_calls, observer),
    ]
    servers = [
        RouterServer(service, boundary, "127.0.0.1:0", None, router.health, beside=others)
        for service, boundary, others in zip((routing, admin), boundaries, (beside, ()), strict=True)
    ]
    keeper = Keeper(observer)
    for server in servers:
        await server.start()
        keeper.keep("health", partial(server.watch_health, 0.05))
    addresses = [f"127.0.0.1:{server.port}" for server in servers]
    try:
        async with grpc.aio.insecure_channel(addresses[0]) as first, grpc.aio.insecure_channel(addresses[1]) as second:
            yield Service(servers[0], servers[1], first, second, router, observer)
    finally:
        await keeper.close()
        for server in servers:
            await server.drain(0)


def _unchanged(served: ServedModel) -> Callable[[Bundle], ServedModel]:
    return lambda bundle: replace(served, bundle=bundle)


def embedded(bundle: Bundle, classifier: OnnxClassifier, model: PocketModel) -> tuple[BudgetRouter, PocketBackend]:
    """A router with the shipped bundle and the pocket reasoner."""
    backend, ladder = PocketBackend(model), bundle.manifest.ladder
    policy = Policy(ladder, bundle.manifest.certificates, LatencyProfile(0.01, 0.001, 8))
    keys, observer = ScoreKeys(b"secret", bundle.version, ladder), RecordingObserver()
    scorer = Scorer(classifier, keys, MemoryCache(1_000, 1 << 20), observer)
    served = ServedModel("pocket", bundle, policy, scorer, backend, Enforcement.NATIVE, model.fingerprint)
    tenants = Tenants(DEFAULT)
    admission = Admission(tenants, FairQueue(1e9, 1.0), MemoryQuotas(), observer)
    return BudgetRouter([served], tenants, ListLog(), observer, Chooser(), MemoryPins(), admission), backend


@pytest.fixture
def backend() -> FakeBackend:
    """The backend of `fake`; a test module may override it with a script."""
    return FakeBackend()


@pytest.fixture
def log() -> ListLog:
    """The outcome log of `fake`."""
    return ListLog()


@pytest.fixture
def cache() -> DictCache:
    """The score cache of `fake`."""
    return DictCache()


@pytest.fixture
async def fake(bundle: Bundle, backend: FakeBackend, log: ListLog, cache: DictCache) -> AsyncIterator[Service]:
    """A service of fakes."""
    async with serving(router_of(backend=backend, log=log, cache=cache), bundle) as service:
        yield service


@pytest.fixture
async def pocket(bundle: Bundle, classifier: OnnxClassifier, pocket_model: PocketModel) -> AsyncIterator[Service]:
    """A service with everything embedded."""
    router, backend = embedded(bundle, classifier, pocket_model)
    async with serving(router, bundle) as service:
        yield service
    backend.close()


@pytest.fixture(params=["fakes", "pocket"])
async def service(
    request: pytest.FixtureRequest, bundle: Bundle, classifier: OnnxClassifier, pocket_model: PocketModel
) -> AsyncIterator[Service]:
    """The same tests for both."""
    backend: PocketBackend | None = None
    router = router_of()
    if request.param == "pocket":
        router, backend = embedded(bundle, classifier, pocket_model)
    async with serving(router, bundle) as running:
        yield running
    if backend is not None:
        backend.close()
