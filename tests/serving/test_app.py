"""The whole service, built from settings, in this process."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from structlog.testing import capture_logs

from router import settings
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.admission.tenants import digest
from router.bundle import manifest, refuted, registry
from router.serving import app
from router.settings import Settings
from tests.conftest import MODELS, another_bundle
from tests.rpc.conftest import PATIENCE, TOKEN, bearer, decide, generate, refusal
from tests.support.fakes import at_once, until
from tests.support.simulators import MODEL, simulated

CHEAP = "Spell this word backward (example: sun -> nus): prunt"
"""The shipped bundle answers it without a thought."""


@asynccontextmanager
async def serving(loaded: Settings, admin: bool = True) -> AsyncIterator[tuple[Any, Any]]:
    """Stubs of the two services."""
    async with app.running(loaded, at_once, follow_seconds=0.05) as ports:
        assert (ports.admin is not None) == admin
        addresses = [f"127.0.0.1:{port}" for port in (ports.port, ports.admin or ports.port)]
        async with grpc.aio.insecure_channel(addresses[0]) as first, grpc.aio.insecure_channel(addresses[1]) as second:
            yield pb_grpc.BudgetRouterServiceStub(first), pb_grpc.BudgetRouterAdminServiceStub(second)


async def test_where_the_engine_goes_down_the_second_model_answers(tmp_path: Path) -> None:
    async with simulated("vllm") as simulator:
        loaded = settings.load(
            listen="127.0.0.1:0",
            outcomes=tmp_path / "outcomes.sqlite",
            admin_token=TOKEN,
            admin_listen="127.0.0.1:0",
            backend="vllm",
            backend_url=simulator.url,
            backend_model=MODEL,
            failover_backend="pocket",
            failover_artifact=MODELS / "pocket-router",
        )
        async with serving(loaded) as (routing, admin):

            async def models() -> list[str]:
                events = [event async for event in routing.Generate(generate())]
                assert events[-1].WhichOneof("event") == "completion"
                return [event.decision.model for event in events if event.WhichOneof("event") == "decision"]

            assert await models() == [MODEL]
            simulator.faults.status = 503
            assert await models() == [MODEL, "pocket"]
            decision = (await routing.Decide(decide(CHEAP, model="pocket"))).decision
            assert decision.certified, "the second model's own bundle and fingerprint"
            status = await admin.GetModelStatus(pb.GetModelStatusRequest(model="pocket"), **bearer(TOKEN))
            assert status.model == "pocket"


def administered(directory: Path, **overrides: Any) -> Settings:
    """Settings of a service that follows a registry of the shipped bundle, with an admin service."""
    registry.promote(directory / "models", MODELS / "pocket-router")
    return settings.load(
        listen="127.0.0.1:0",
        outcomes=directory / "outcomes.sqlite",
        artifact=directory / "models",
        admin_token=TOKEN,
        admin_listen="127.0.0.1:0",
        **overrides,
    )


async def test_a_bundle_is_promoted_under_load_without_a_failed_request(tmp_path: Path) -> None:
    loaded = administered(tmp_path)
    bundles = [str(another_bundle(tmp_path / name, name)) for name in "ab"]
    async with serving(loaded) as (routing, admin):
        versions: list[str] = []
        stop = asyncio.Event()

        async def load(i: int) -> None:
            while not stop.is_set():
                events = [e async for e in routing.Generate(generate(f"{CHEAP}{i}{len(versions)}"))]
                assert events[-1].WhichOneof("event") == "completion"
                versions.append(events[0].decision.model_version)
                await asyncio.sleep(0.1)  # the load must leave room for the promotion, and for other tests

        loading = [asyncio.create_task(load(i)) for i in range(4)]
        served = [manifest.load(MODELS / "pocket-router").version]
        await until(lambda: versions)
        for bundle in bundles:
            promoted = await admin.PromoteModel(pb.PromoteModelRequest(path=bundle), **bearer(TOKEN))
            served.append(promoted.model_version)
            await until(lambda: served[-1] in versions)
        back = (await admin.RollbackModel(pb.RollbackModelRequest(), **bearer(TOKEN))).model_version
        before = len(versions)
        await until(lambda: back in versions[before:])
        stop.set()
        await asyncio.gather(*loading)
        assert list(dict.fromkeys(versions)) == served and len(set(served)) == 3
        assert back == served[-2] == (await routing.Decide(decide(CHEAP))).decision.model_version
        seen = await refusal(admin.PromoteModel(pb.PromoteModelRequest(path="/nowhere"), **bearer(TOKEN)))
        assert (seen.code, seen.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ArtifactError")
        seen = await refusal(admin.PromoteModel(pb.PromoteModelRequest(), **bearer(TOKEN)))
        assert seen.fields == ["path"]


async def test_a_promotion_under_way_takes_nothing_from_the_drain_of_the_routing_service(tmp_path: Path) -> None:
    loaded = administered(
        tmp_path,
        drain_seconds=100 * PATIENCE,
        shadow=1_000,  # without traffic the promotion waits for as long as it may
    )
    bundle = another_bundle(tmp_path / "b", "b")
    async with AsyncExitStack() as stack, AsyncExitStack() as running, asyncio.timeout(PATIENCE):
        ports = await running.enter_async_context(app.running(loaded, at_once))
        admin_channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{ports.admin}"))
        admin: Any = pb_grpc.BudgetRouterAdminServiceStub(admin_channel)
        promoting = admin.PromoteModel(pb.PromoteModelRequest(path=str(bundle)), **bearer(TOKEN))
        await until(lambda: len(registry.history(tmp_path / "models")) == 2)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{ports.port}"))
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        closing = asyncio.create_task(running.pop_all().aclose())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not closing.done()
        promoting.cancel()
        await closing


async def test_an_audit_that_alarms_sends_everyone_to_the_top_rung_also_after_a_restart(tmp_path: Path) -> None:
    """The operator's verifier finds every cheaper answer wrong."""

    async def verify(request: web.Request) -> web.Response:
        assert len((await request.json())["answers"]) == 2
        return web.json_response({"correct": [1.0, 0.0]})

    application = web.Application()
    application.router.add_post("/", verify)
    verifier = web.AppRunner(application, shutdown_timeout=0.1)
    await verifier.setup()
    await web.TCPSite(verifier, "127.0.0.1", 0).start()
    loaded = settings.load(
        listen="127.0.0.1:0",
        outcomes=tmp_path / "outcomes.sqlite",
        admin_token=TOKEN,
        admin_listen="127.0.0.1:0",
        audit=1.0,
        audit_file=tmp_path / "audit.json",
        verifier_url="http://{}:{}/".format(*verifier.addresses[0][:2]),
    )
    for started in ("first", "again"):
        async with serving(loaded) as (routing, admin):
            decision = (await routing.Decide(decide(CHEAP))).decision
            assert decision.certified == (started == "first")
            async with asyncio.timeout(30):
                while decision.certified:
                    assert [event async for event in routing.Generate(generate(CHEAP))]
                    decision = (await routing.Decide(decide(CHEAP))).decision
            assert decision.rung == "256" and "more loss than was certified" in decision.reason
            status = await admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
            assert "more loss" in status.suspended
    await verifier.cleanup()


async def decided(routing: Any, *, certified: bool) -> Any:
    """The first decision that is certified, or is not."""
    async with asyncio.timeout(30):
        while (found := (await routing.Decide(decide(CHEAP))).decision).certified != certified:  # noqa: ASYNC110  it lies behind a call
            await asyncio.sleep(0.02)
        return found


async def test_what_the_trainer_refutes_is_believed_by_no_service_of_the_registry(tmp_path: Path) -> None:
    version = registry.promote(tmp_path / "models", MODELS / "pocket-router")
    loaded = settings.load(
        listen="127.0.0.1:0",
        artifact=tmp_path / "models",
        outcomes=tmp_path / "outcomes.sqlite",
        admin_token=TOKEN,
        admin_listen="127.0.0.1:0",
    )
    async with serving(loaded) as (first, admin), serving(loaded.model_copy()) as (second, _):
        assert (await first.Decide(decide(CHEAP))).decision.certified
        await asyncio.to_thread(refuted.add, tmp_path / "models", version)
        for service in (first, second):
            decision = await decided(service, certified=False)
            assert decision.rung == "256" and "after the bundle" in decision.reason
        status = await admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
        assert status.suspended in decision.reason
        # A better bundle ends it, and going back to the refuted one brings it back.
        better = another_bundle(tmp_path / "better", "another one")
        await asyncio.to_thread(registry.promote, tmp_path / "models", better)
        await decided(first, certified=True)
        await admin.RollbackModel(pb.RollbackModelRequest(), **bearer(TOKEN))
        assert not (await first.Decide(decide(CHEAP))).decision.certified
    async with serving(loaded) as (again, _):
        assert not (await again.Decide(decide(CHEAP))).decision.certified


async def test_with_tls_and_keys_everything_is_encrypted_and_asked_for_them(tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    made.private_key_pem.write_to_path(tmp_path / "server.key")
    tenants = tmp_path / "tenants.toml"
    tenants.write_text(f'[one]\nkeys = [{{ sha256 = "{digest("a key")}" }}]\n')
    loaded = settings.load(
        listen="0.0.0.0:0",
        admin_listen="127.0.0.1:0",
        admin_token=TOKEN,
        outcomes=tmp_path / "outcomes.sqlite",
        tenants=tenants,
        tls_certificate=tmp_path / "server.pem",
        tls_key=tmp_path / "server.key",
    )
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with app.running(loaded, at_once) as ports:
        async with grpc.aio.secure_channel(f"localhost:{ports.port}", credentials) as channel:
            routing: Any = pb_grpc.BudgetRouterServiceStub(channel)
            assert (await refusal(routing.Decide(decide()))).code is grpc.StatusCode.UNAUTHENTICATED
            assert (await routing.Decide(decide(), **bearer("a key"))).decision.rung
            health: Any = health_pb2_grpc.HealthStub(channel)
            for name in ("", "budget_router.v1.BudgetRouterService", "backend/pocket", "outcomes"):
                told = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert told.status == health_pb2.HealthCheckResponse.SERVING
        async with grpc.aio.secure_channel(f"localhost:{ports.admin}", credentials) as channel:
            admin: Any = pb_grpc.BudgetRouterAdminServiceStub(channel)
            assert (await admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))).model == "pocket"
            seen = await refusal(admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer("a key")))
            assert seen.code is grpc.StatusCode.UNAUTHENTICATED


async def test_traces_go_to_a_collector(tmp_path: Path) -> None:
    spans: list[str] = []

    class Collector(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            scopes = [scope for resource in request.resource_spans for scope in resource.scope_spans]
            spans.extend(span.name for scope in scopes for span in scope.spans)
            return trace_service_pb2.ExportTraceServiceResponse()

    collector = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), collector)  # type: ignore[no-untyped-call]
    port = collector.add_insecure_port("127.0.0.1:0")
    collector.start()
    loaded = settings.load(
        listen="127.0.0.1:0", outcomes=tmp_path / "outcomes.sqlite", otlp_url=f"http://127.0.0.1:{port}"
    )
    async with serving(loaded, admin=False) as (routing, _):
        await routing.Decide(decide())
        assert [event async for event in routing.Generate(generate(CHEAP))]
    collector.stop(1)
    assert sorted(spans) == ["Decide", "Generate"]


@pytest.mark.parametrize("max_loss", [0.001, 0.02])
async def test_a_default_target_that_the_bundle_does_not_certify_is_said_at_start(
    tmp_path: Path, max_loss: float
) -> None:
    loaded = settings.load(listen="127.0.0.1:0", outcomes=tmp_path / "outcomes.sqlite", max_loss=max_loss)
    with capture_logs() as lines:
        async with serving(loaded, admin=False) as (routing, _):
            decision = (await routing.Decide(decide(CHEAP))).decision
    said = [line["why"] for line in lines if line["event"] == "default target not certified"]
    why = "no certificate for a loss of 0.001 (there are some for 0.005, 0.01, 0.02, 0.05, 0.1)"
    assert said == ([why] if max_loss == 0.001 else [])
    remedies = [line["remedy"] for line in lines if line["event"] == "default target not certified"]
    assert all("serve with BUDGET_ROUTER_MAX_LOSS=0.0" in remedy for remedy in remedies)
    assert (decision.reason == f"{why}: the top rung") == (max_loss == 0.001)
