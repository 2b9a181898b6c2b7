"""A bundle with a rule that stops within the thought, served as it lies on the disk."""

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router import settings
from router._gen import budget_router_pb2 as pb
from router.bundle.manifest import LOOKAHEAD, MANIFEST, digest, load
from router.errors import ArtifactError
from router.scoring.trial import require_bounded
from tests.conftest import MODELS
from tests.rpc.conftest import TOKEN, bearer, generate
from tests.serving.test_app import serving
from tests.serving.test_doctor import fingerprint_of, settings_for
from tests.support.learned_bundles import STOPS_AT, learned_bundle
from tests.support.simulators import simulated

THOUGHTFUL = "How many 1 bits are there in the binary representation of the number 27711?"


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_bundle_with_a_learned_rule_stops_thoughts(tmp_path: Path, ahead: bool) -> None:
    loaded = settings.load(
        listen="127.0.0.1:0",
        outcomes=tmp_path / "outcomes.sqlite",
        artifact=learned_bundle(tmp_path / "bundle"),
        admin_token=TOKEN,
        admin_listen="127.0.0.1:0",
        probe_ahead=ahead,
    )
    about = load(MODELS / "pocket-router")
    async with serving(loaded) as (routing, admin):
        events = [event async for event in routing.Generate(generate(THOUGHTFUL, show_checkpoints=True))]
        status = await admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
        explained = await routing.Explain(pb.ExplainRequest(decision_id=events[0].decision.decision_id))
    decision, end = events[0].decision, events[-1].completion
    assert (decision.rule, decision.expected_thinking_tokens) == (pb.RULE_STOPPING, 20.0)
    stop = about.manifest.ladder.rungs[STOPS_AT]
    assert (end.finish_reason, end.rung, end.thinking_tokens) == (pb.FINISH_REASON_CONVERGED, stop.name, stop.tokens)
    assert sum(event.WhichOneof("event") == "checkpoint" for event in events) == STOPS_AT + 1
    assert status.steps and [one.alpha for one in status.stopping] == [0.02]
    assert f"At rung {stop.name}, after {stop.tokens} tokens" in explained.sentences[-1]
    assert explained.sentences[-1].endswith("it ended there.")


async def test_a_rule_that_the_engine_gives_no_steps_for_is_named_at_the_start(tmp_path: Path) -> None:
    async with simulated("vllm", no_tokens=True) as engine:
        directory = learned_bundle(tmp_path / "bundle")
        about = json.loads((directory / MANIFEST).read_text())
        loaded = settings_for(engine, tmp_path, artifact=directory)
        about["backend_fingerprint"] = await fingerprint_of(loaded)
        (directory / MANIFEST).write_text(json.dumps(about))
        with capture_logs() as lines:
            async with serving(loaded) as (routing, _):
                first, *_ = [event async for event in routing.Generate(generate())]
    assert [line["effect"] for line in lines if line["event"] == "engine without steps"] == [
        "the text of the prompt chooses the rung, and no rule stops within the thought"
    ]
    assert first.decision.rule != pb.RULE_STOPPING


async def test_a_spoilt_lookahead_is_refused_before_it_serves(tmp_path: Path) -> None:
    directory = learned_bundle(tmp_path / "bundle")
    await require_bounded(directory, load(directory))
    (directory / LOOKAHEAD).write_bytes((directory / "model.onnx").read_bytes())
    about = json.loads((directory / MANIFEST).read_text())
    about["files"][LOOKAHEAD] = digest(directory / LOOKAHEAD)
    (directory / MANIFEST).write_text(json.dumps(about))
    with pytest.raises(ArtifactError, match=r"^lookahead\.onnx: "):
        await require_bounded(directory, load(directory))
