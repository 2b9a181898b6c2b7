"""Collection and feature extraction on a real Ray cluster of two workers, on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from router.backends.connect import Connection
from router.domain import Sampling
from router.errors import BackendUnavailable
from tests.conftest import free_port
from training.collect import run
from training.collect.questions import held_out_questions
from training.collect.recipes import POCKET, POCKET_ANSWER_TOKENS, parse_ladder
from training.collect.units import Pocket, Recipe
from training.model import embedding, fit

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # Ray warns of its own settings, and leaves files of its log open
    "ignore:unclosed file:ResourceWarning",
    "ignore:.*ray-data:pytest.PytestUnraisableExceptionWarning",
)

RECIPE = Recipe(Pocket(POCKET.resolve()), "pocket/x", parse_ladder("0,3,16"), 1, Sampling(0, POCKET_ANSWER_TOKENS), 4)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running cluster: a head without cores and two workers of one core each."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        started.add_node(num_cpus=1)
    yield str(started.address)
    ray.shutdown()
    started.shutdown()  # type: ignore[no-untyped-call]


def test_collecting_on_a_cluster_gives_what_this_machine_gives(cluster: str, tmp_path: Path) -> None:
    from training.collect import ray as remote

    remote.connect(cluster)
    questions = held_out_questions(1, 99)[::3]
    run.collect(questions, RECIPE, tmp_path / "ray.parquet", remote.collect)
    run.collect(questions, RECIPE, tmp_path / "local.parquet", run.local)
    one, other = (pl.read_parquet(tmp_path / f"{name}.parquet").drop("observed_at") for name in ("ray", "local"))
    assert one.equals(other)


def test_features_are_those_of_this_machine_in_order(cluster: str) -> None:
    from training.collect import ray as remote

    remote.connect(cluster)
    prompts = [question.prompt for question in held_out_questions(10, 5)]
    static = embedding.static()
    assert np.allclose(remote.features(static, prompts), fit.inputs(static, prompts), atol=1e-6)


def test_an_engine_that_is_gone_is_told_as_on_this_machine(cluster: str, tmp_path: Path) -> None:
    from training.collect import ray as remote

    remote.connect(cluster)
    source = Connection("vllm", f"http://127.0.0.1:{free_port()}", "m")
    recipe = Recipe(source, "m", parse_ladder("0,16"), 1, Sampling(), 4)
    with pytest.raises(BackendUnavailable, match="does not answer"):
        run.collect(held_out_questions(1, 99)[:4], recipe, tmp_path / "o.parquet", remote.collect)


def test_no_cluster_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training", "collect", "--engine", "ray", "--out", str(tmp_path / "o.parquet")]
    command += ["--ray-address", f"127.0.0.1:{free_port()}", "--per-level", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("budget-train: no Ray cluster at")
