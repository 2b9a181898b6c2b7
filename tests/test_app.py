"""The whole service, built from settings, in this process."""

from pathlib import Path
from typing import Any

import grpc

from router import app, settings
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from tests.conftest import MODELS
from tests.rpc.conftest import TOKEN, bearer, decide, generate
from tests.simulators import MODEL, simulated


async def test_where_the_engine_goes_down_the_second_model_answers(tmp_path: Path) -> None:
    async with simulated("vllm") as simulator:
        loaded = settings.load(
            listen="127.0.0.1:0",
            outcomes=tmp_path / "outcomes.sqlite",
            admin_token=TOKEN,
            backend="vllm",
            backend_url=simulator.url,
            backend_model=MODEL,
            failover_backend="pocket",
            failover_artifact=MODELS / "pocket-router",
        )
        async with app.running(loaded) as server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            routing: Any = pb_grpc.BudgetRouterServiceStub(channel)
            admin: Any = pb_grpc.BudgetRouterAdminServiceStub(channel)

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
