"""The whole service says how far it has come in learning: by admin service, folder, command and metrics."""

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner

from router._gen import budget_router_pb2 as pb
from router.cli.commands import cli
from router.learning.overview import Overview
from router.serving import learning_gauges
from tests.learning.test_observing import PROMPTS, asked, learned, observing
from tests.learning.test_overview import WHOLE
from tests.rpc.conftest import TOKEN, bearer
from tests.serving.test_app import serving
from tests.support.fakes import until


async def test_a_service_that_learns_says_how_far_it_has_come(tmp_path: Path) -> None:
    loaded = observing(tmp_path, admin_token=TOKEN, admin_listen="127.0.0.1:0", log_prompts=True)
    async with serving(loaded) as (routing, admin):
        await asked(routing, *PROMPTS)
        await until(lambda: len(learned(tmp_path)) == len(PROMPTS))
        said = await admin.GetLearningStatus(pb.GetLearningStatusRequest(), **bearer(TOKEN))
        assert (said.mode, said.evidence) == (pb.LEARNING_MODE_OBSERVE, len(PROMPTS))
        assert not said.HasField("learning"), "no trainer has run"
        command = ["label", "--folder", str(loaded.learn_folder), "--json"]
        shown = await asyncio.to_thread(CliRunner().invoke, cli, command)
    differing = [one for one in learned(tmp_path) if sum(one.losses())]
    assert {json.loads(line)["prompt"] for line in shown.stdout.splitlines()} <= set(PROMPTS)
    assert differing and shown.stdout
    after = json.loads(CliRunner().invoke(cli, ["status", "--folder", str(loaded.learn_folder), "--json"]).stdout)
    assert (after["mode"], after["requests"], after["evidence"]) == ("observe", len(PROMPTS), len(PROMPTS))


def samples(overview: Overview) -> dict[str, float]:
    return {
        f"{one.name.removeprefix(learning_gauges.PREFIX)} {' '.join(one.labels.values())}".strip(): one.value
        for family in learning_gauges.families(overview)
        for one in family.samples
    }


def test_gauges_say_what_the_status_says() -> None:
    assert samples(Overview()) == {}
    assert samples(Overview("observe", 5, 2)) == {"mode observe": 1, "requests": 5, "pieces": 2}
    seen = samples(WHOLE)
    assert seen["state certified"] == 1 and seen["evidence free"] == 200 and seen["evidence unusable"] == 4
    assert [seen[f"certified {loss}"] for loss in ("0.005", "0.01", "0.02", "0.05")] == [0, 0, 1, 1]
    assert seen["saving 0.02"] == 0.312 and "saving 0.005" not in seen
    assert seen["requests_wanted 0.01"] == 600 and seen["requests_wanted 0.02"] == 0
    assert "requests_wanted 0.005" not in seen, "what is not in sight has no number"
    assert (seen["saved_tokens low"], seen["saved_tokens estimate"], seen["spent_tokens"]) == (0.9e6, 1e6, 84_120)
