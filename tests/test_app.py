"""The whole service, built from settings, in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web

from router import app, registry, settings
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.settings import Settings
from tests.conftest import MODELS, another_bundle
from tests.rpc.conftest import TOKEN, bearer, decide, generate, refusal
from tests.simulators import MODEL, simulated

CHEAP = "Spell this word backward (example: sun -> nus): prunt"
"""The shipped bundle answers it without a thought."""


@asynccontextmanager
async def serving(loaded: Settings) -> AsyncIterator[tuple[Any, Any]]:
    """Stubs of the two services."""
    async with app.running(loaded) as ports:
        addresses = [f"127.0.0.1:{port}" for port in (ports.port, ports.admin)]
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
            decision = (await routing.Decide(decide(model="pocket"))).decision
            assert decision.certified, "the second model's own bundle and fingerprint"
            status = await admin.GetModelStatus(pb.GetModelStatusRequest(model="pocket"), **bearer(TOKEN))
            assert status.model == "pocket"


async def test_a_bundle_is_promoted_under_load_without_a_failed_request(tmp_path: Path) -> None:
    registry.promote(tmp_path / "models", MODELS / "pocket-router")
    loaded = settings.load(
        listen="127.0.0.1:0",
        outcomes=tmp_path / "outcomes.sqlite",
        artifact=tmp_path / "models",
        admin_token=TOKEN,
        admin_listen="127.0.0.1:0",
    )
    bundles = [str(another_bundle(tmp_path / name, name)) for name in "abc"]
    async with serving(loaded) as (routing, admin):
        versions: list[str] = []
        stop = asyncio.Event()

        async def load(i: int) -> None:
            while not stop.is_set():
                events = [e async for e in routing.Generate(generate(f"{i} + {len(versions)} ="))]
                assert events[-1].WhichOneof("event") == "completion"
                versions.append(events[0].decision.model_version)

        loading = [asyncio.create_task(load(i)) for i in range(4)]
        for bundle in bundles:
            await admin.PromoteModel(pb.PromoteModelRequest(path=bundle), **bearer(TOKEN))
            await asyncio.sleep(0.2)
        back = (await admin.RollbackModel(pb.RollbackModelRequest(), **bearer(TOKEN))).model_version
        await asyncio.sleep(0.2)
        stop.set()
        await asyncio.gather(*loading)
        assert len(set(versions)) == 4
        assert versions[-1] == back
        seen = await refusal(admin.PromoteModel(pb.PromoteModelRequest(path="/nowhere"), **bearer(TOKEN)))
        assert (seen.code, seen.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ArtifactError")
        seen = await refusal(admin.PromoteModel(pb.PromoteModelRequest(), **bearer(TOKEN)))
        assert seen.fields == ["path"]


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
