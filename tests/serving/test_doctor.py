"""The doctor, and the service, in front of an engine that the bundle is not about."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router import settings
from router._gen import budget_router_pb2 as pb
from router.backends.families import USUAL
from router.bundle import manifest, registry
from router.errors import TargetUnmet
from router.serving import doctor, engines
from router.settings import Settings
from tests.conftest import MODELS, another_bundle
from tests.rpc.conftest import TOKEN, bearer, decide, generate, refusal
from tests.serving.test_app import serving
from tests.support.simulators import MODEL, THOUGHT, Simulator, simulated

CHECK = "bundle is about this engine"
ABOUT = manifest.load(MODELS / "pocket-router").manifest.backend_fingerprint
KINDS = ("vllm", "sglang", "llama_cpp")


def settings_for(simulator: Simulator, directory: Path, **more: object) -> Settings:
    return settings.load(
        listen="127.0.0.1:0",
        outcomes=directory / "outcomes.sqlite",
        admin_token=TOKEN,
        admin_listen="127.0.0.1:0",
        **{"backend": simulator.kind, "backend_url": simulator.url, "backend_model": MODEL} | more,
    )


async def fingerprint_of(loaded: Settings) -> str:
    """What the router calls the engine of these settings."""
    async with AsyncExitStack() as stack:
        (replica,) = engines.replicas(loaded, loaded.served[0], stack)
        return await replica.backend.prove()


async def bundle_about(directory: Path, loaded: Settings) -> Path:
    """A copy of the shipped bundle that is about the engine of these settings."""
    return another_bundle(directory, "the engine", backend_fingerprint=await fingerprint_of(loaded))


async def test_the_doctor_fails_where_the_bundle_is_about_another_engine(tmp_path: Path) -> None:
    async with simulated("vllm") as simulator:
        loaded = settings_for(simulator, tmp_path)
        engine = await fingerprint_of(loaded)
        (found,) = [finding for finding in (await doctor.examine(loaded)).findings if finding.check == CHECK]
        assert not found.passed and found.needed
        assert ABOUT in found.seen and engine in found.seen and "budget-train collect" in found.seen
        own = settings_for(simulator, tmp_path, artifact=await bundle_about(tmp_path / "own", loaded))
        (found,) = [finding for finding in (await doctor.examine(own)).findings if finding.check == CHECK]
        assert found.passed and found.seen == engine


@pytest.mark.parametrize("kind", KINDS)
async def test_the_embedded_bundle_cuts_no_thought_of_a_real_engine(kind: str, tmp_path: Path) -> None:
    async with simulated(kind) as simulator, serving(settings_for(simulator, tmp_path)) as (routing, admin):
        simulator.bodies.clear()
        for options in (pb.RoutingOptions(), pb.RoutingOptions(min_quality=0.8), pb.RoutingOptions(max_loss=1)):
            events = [event async for event in routing.Generate(generate("Prove it.", options=options))]
            decision, completion = events[0].decision, events[-1].completion
            assert (decision.source, decision.rung) == (pb.DECISION_SOURCE_ENGINE_DEFAULT, "default")
            assert "about another engine; `budget-router doctor`" in decision.reason
            assert not decision.HasField("budget_tokens")
            assert completion.thinking_tokens == THOUGHT and not completion.HasField("budget_tokens")
        limits = {"thinking_token_budget", "thinking_budget_tokens", "custom_params", "max_tokens"}
        assert not any(limits & body.keys() for _, body in simulator.bodies)
        capped = pb.RoutingOptions(max_thinking_tokens=8)
        events = [event async for event in routing.Generate(generate("Prove it.", options=capped))]
        assert (events[-1].completion.thinking_tokens, events[-1].completion.budget_tokens) == (8, 8)
        refused = pb.RoutingOptions(on_unmet=pb.ON_UNMET_REJECT)
        seen = await refusal(routing.Decide(decide("Prove it.", options=refused)))
        assert (seen.code.name, seen.reason) == ("FAILED_PRECONDITION", TargetUnmet.__name__)
        status = await admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
        assert ABOUT in status.suspended


async def test_a_promoted_bundle_about_the_engine_serves_at_once(tmp_path: Path) -> None:
    registry.promote(tmp_path / "models", MODELS / "pocket-router")
    async with simulated("vllm") as simulator:
        loaded = settings_for(simulator, tmp_path, artifact=tmp_path / "models")
        own = await bundle_about(tmp_path / "own", loaded)
        async with serving(loaded) as (routing, admin):
            assert (await routing.Decide(decide())).decision.rung == "default"
            await admin.PromoteModel(pb.PromoteModelRequest(path=str(own)), **bearer(TOKEN))
            decision = (await routing.Decide(decide())).decision
            assert decision.source == pb.DECISION_SOURCE_CLASSIFIER and decision.forecasts
            status = await admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
            assert status.suspended == ""


async def test_the_start_says_it_in_one_line(tmp_path: Path) -> None:
    with capture_logs() as lines:
        async with simulated("vllm") as simulator, serving(settings_for(simulator, tmp_path)):
            pass
    (line,) = [line for line in lines if line["event"] == "foreign bundle"]
    assert (line["log_level"], line["model"]) == ("warning", MODEL)
    assert ABOUT in line["why"] and "vllm-1.0" in line["why"]


async def seen_by(loaded: Settings) -> dict[str, tuple[bool, str]]:
    return {finding.check: (finding.passed, finding.seen) for finding in (await doctor.examine(loaded)).findings}


async def test_the_doctor_says_why_a_way_does_not_work_and_what_to_set(tmp_path: Path) -> None:
    async with simulated("vllm", ignores_budget=True, many_token_marker=True) as simulator:
        seen = await seen_by(settings_for(simulator, tmp_path))
        assert seen["markers of a thought"] == (True, f"'<think>' and '</think>', as {USUAL.name} have them")
        passed, why = seen["native: budget 8"]
        assert not passed and why.endswith("; does it run with --reasoning-parser P?")
        assert all(passed for check, (passed, _) in seen.items() if check.startswith("two_phase: "))

        seen = await seen_by(settings_for(simulator, tmp_path, think_end="[/THINK]"))
        passed, why = seen["markers of a thought"]
        assert not passed and "as the settings say, but the model looks like" in why
        assert "unset BUDGET_ROUTER_THINK_START" in why

        simulator.statuses = {"/tokenize": 404}
        passed, why = (await seen_by(settings_for(simulator, tmp_path)))["two_phase: ready"]
        assert not passed and why == (
            "it has no /tokenize (HTTP 404); two phases need /tokenize and /v1/completions: does a proxy "
            "before it forward them?"
        )
