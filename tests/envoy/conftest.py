"""A gateway that speaks to the router as Envoy does, message by message."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from router._gen import external_processor_pb2 as pb
from router.admission.tenants import Key, Tenant, Tenants, digest
from router.backends.dialects import DIALECTS
from router.bundle.manifest import Bundle
from router.envoy.budget_fields import BudgetFields
from router.envoy.decider import GatewayDecider
from router.envoy.gateway import Gateway
from router.envoy.processor import METHOD, SERVICE, ExternalProcessor
from router.envoy.watcher import Watcher
from router.events import GatewayAnswered
from router.routing.router import BudgetRouter
from router.rpc.server import Foreign
from tests.rpc.conftest import PATIENCE, Service, serving
from tests.support.ext_proc import HEADERS, body_message, headers_message
from tests.support.fakes import LIMITS, MODEL, RecordingObserver, router_of

KEYED = {
    "gateway": Tenant(keys=(Key(sha256=digest("of the gateway")),), gateway=True),
    "search": Tenant(keys=(Key(sha256=digest("of search")),)),
}


def body_of(text: str = "2 + 2 =", **fields: Any) -> bytes:
    """The body of a good chat request, but for what is given."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": True}
    return json.dumps(asked | fields).encode()


@dataclass(frozen=True)
class Asking:
    """A gateway in front of a running router."""

    service: Service
    observer: RecordingObserver

    def call(self, **options: Any) -> Any:
        """A call of its own for one HTTP request."""
        method = self.service.channel.stream_stream(
            f"/{SERVICE}/{METHOD}", pb.ProcessingRequest.SerializeToString, pb.ProcessingResponse.FromString
        )
        return method(timeout=PATIENCE, **options)

    async def say(self, *messages: pb.ProcessingRequest, **options: Any) -> list[pb.ProcessingResponse]:
        """The answers to some messages, each sent once the one before is answered. With the last one the call ends."""
        call, answers = self.call(**options), []
        for message in messages:
            await call.write(message)
            answers.append(await call.read())
        assert await call.code() is grpc.StatusCode.OK, await call.details()
        return answers

    async def ask(self, body: bytes, **headers: str) -> pb.ProcessingResponse:
        """The answer to a body."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await self.say(headers_message(HEADERS | given), body_message(body)))[1]

    @property
    def became(self) -> list[tuple[str, str]]:
        """What became of each request, and why."""
        return [(record.outcome, record.cause) for record in self.observer.of(GatewayAnswered)]


@asynccontextmanager
async def asking(
    bundle: Bundle,
    router: BudgetRouter | None = None,
    *,
    kind: str = "vllm",
    tenants: Tenants | None = None,
    seconds: float = PATIENCE,
    fails_open: bool = True,
    tenant_header: str = "",
    response_headers: bool = False,
    destination_header: str = "",
    watched: bool = False,
) -> AsyncIterator[Asking]:
    """A router of fakes, whose engine is of a kind, and a gateway that asks it."""
    router, observer, tenants = router or router_of(), RecordingObserver(), tenants or Tenants({})
    engines = {one.model: BudgetFields(one.model, DIALECTS[kind], "Time is up.") for one in router.served_models}
    gateway = Gateway(engines, seconds, fails_open, tenant_header, response_headers, destination_header)
    dialects = dict.fromkeys(engines, DIALECTS[kind])
    watcher = Watcher(router, router._log, tenants, dialects, observer) if watched else None  # type: ignore[arg-type]
    expect = None if watcher is None else watcher.expect
    decider = GatewayDecider(router, tenants, LIMITS, gateway, observer, expect)
    processor = ExternalProcessor(decider, watcher, response_headers=response_headers)
    beside = [Foreign(SERVICE, {METHOD: processor.process})]
    async with serving(router, bundle, tenants=tenants, beside=beside) as service:
        yield Asking(service, observer)


@pytest.fixture
async def gateway(bundle: Bundle) -> AsyncIterator[Asking]:
    """A gateway in front of a vLLM."""
    async with asking(bundle) as asked:
        yield asked
