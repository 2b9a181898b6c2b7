"""Collection and feature extraction by Ray: its workers in this process, and a real cluster of two on this machine."""

import os
import pickle
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from router.backends.connect import Connection
from router.domain import Sampling
from router.errors import BackendUnavailable
from tests.support.ports import free_port
from training.__main__ import main
from training.collect import run
from training.collect.questions import held_out_questions
from training.collect.recipes import POCKET, POCKET_ANSWER_TOKENS, parse_ladder
from training.collect.units import Pocket, Recipe, UnitResult
from training.model import embedding, fit

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # Ray warns of its own settings, and leaves files of its log open
    "ignore:unclosed file:ResourceWarning",
    "ignore:.*ray-data:pytest.PytestUnraisableExceptionWarning",
)

RECIPE = Recipe(
    Pocket(POCKET.resolve()), "pocket/x", parse_ladder("0,3,16"), 1, Sampling(0, POCKET_ANSWER_TOKENS), 4, nested=True
)


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


GONE = Connection("vllm", f"http://127.0.0.1:{free_port()}", "m")


def test_a_collector_gives_what_this_machine_gives() -> None:
    from training.collect import ray as remote

    units = run.units(held_out_questions(1, 99)[::12], RECIPE)
    batch = remote._RayCollector(RECIPE)({"unit": np.array([pickle.dumps(unit) for unit in units])})
    collected = [one for finished in batch["results"] for one in pickle.loads(finished)]
    here = [one for finished in run.local(units, RECIPE) for one in finished]
    assert without_time(collected) == without_time(here)


def test_an_extractor_gives_what_this_machine_gives() -> None:
    from training.collect import ray as remote

    static = embedding.static()
    prompts = [question.asked for question in held_out_questions(1, 5)]
    batch = remote._Extractor(static)(
        {"place": np.arange(len(prompts)), "prompt": np.array(list(map(pickle.dumps, prompts)), dtype=object)}
    )
    assert np.array_equal(batch["place"], np.arange(len(prompts)))
    assert np.allclose(batch["inputs"], fit.inputs(static, prompts), atol=1e-6)


def test_a_collector_hands_back_the_error_of_an_engine_that_is_gone() -> None:
    from training.collect import ray as remote

    recipe = Recipe(GONE, "m", parse_ladder("0,16"), 1, Sampling(), 4)
    units = run.units(held_out_questions(1, 99)[:4], recipe)
    collector = remote._RayCollector(recipe)
    with closing(collector._collector):
        batch = collector({"unit": np.array([pickle.dumps(unit) for unit in units])})
    (error,) = (pickle.loads(one) for one in batch["results"])
    assert isinstance(error, BackendUnavailable) and "nothing listens at its port" in str(error)


def without_time(finished: list[UnitResult]) -> list[UnitResult]:
    """The same, in the order of their keys, without when it was observed."""
    rows = {one.key: [row | {"observed_at": None} for row in one.rows] for one in finished}
    return [UnitResult(key, rows[key], 0) for key in sorted(rows)]


def test_no_cluster_is_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["collect", "--engine", "ray", "--out", str(tmp_path / "o.parquet")]
    command += ["--ray-address", f"127.0.0.1:{free_port()}", "--per-level", "1"]
    monkeypatch.setattr("sys.argv", ["budget-train", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("budget-train: no Ray cluster at")


@pytest.mark.slow
def test_collecting_on_a_cluster_gives_what_this_machine_gives(cluster: str, tmp_path: Path) -> None:
    from training.collect import ray as remote

    remote.connect(cluster)
    questions = held_out_questions(1, 99)[::3]
    run.collect(questions, RECIPE, tmp_path / "ray.parquet", remote.collect)
    run.collect(questions, RECIPE, tmp_path / "local.parquet", run.local)
    one, other = (pl.read_parquet(tmp_path / f"{name}.parquet").drop("observed_at") for name in ("ray", "local"))
    assert one.equals(other)


@pytest.mark.slow
def test_features_are_those_of_this_machine_in_order(cluster: str) -> None:
    from training.collect import ray as remote

    remote.connect(cluster)
    prompts = [question.asked for question in held_out_questions(10, 5)]
    static = embedding.static()
    assert np.allclose(remote.features(static, prompts), fit.inputs(static, prompts), atol=1e-6)


@pytest.mark.slow
def test_an_engine_that_is_gone_is_reported_as_on_this_machine(cluster: str, tmp_path: Path) -> None:
    from training.collect import ray as remote

    remote.connect(cluster)
    recipe = Recipe(GONE, "m", parse_ladder("0,16"), 1, Sampling(), 4)
    with pytest.raises(BackendUnavailable, match="nothing listens at its port; run again to continue"):
        run.collect(held_out_questions(1, 99)[:4], recipe, tmp_path / "o.parquet", remote.collect)
