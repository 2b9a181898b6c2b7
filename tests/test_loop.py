"""The closed loop in a smaller form: traffic, outcomes, retraining, promotion under load, fewer tokens."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.loop import RESULTS, Sizes, run


def test_the_figures_are_written_where_git_ignores_them() -> None:
    assert subprocess.run(["git", "check-ignore", "--quiet", RESULTS], cwd=Path(__file__).parents[1]).returncode == 0


@pytest.mark.slow
def test_served_traffic_makes_a_bundle_that_spends_less(tmp_path: Path) -> None:
    found: dict[str, Any] = run(
        Sizes(gold=1_500, novice=90, first=1_400, second=150, max_loss=0.05, families=("logistic",)), tmp_path
    )
    assert found["failed"] == 0
    assert found["retrain"]["promoted"], found["retrain"]["refused"]
    assert found["asked_while_retraining"] > 0
    assert (found["first half"]["certified"], found["first half"]["versions"]) == (0, 1)
    assert found["second half"]["certified"] > 0.5
    assert found["second half"]["thinking_tokens"] < found["second half at the top"]["thinking_tokens"]
    low = found["saved"][1]
    assert low > 0
    assert found["lost"][1] < 0.05, "the loss is not significantly above the target"
