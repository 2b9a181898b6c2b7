"""The closed loop in a smaller form: traffic, outcomes, retraining, promotion under load, fewer tokens."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.loop import Sizes, run


@pytest.mark.slow
def test_served_traffic_makes_a_bundle_that_spends_less(tmp_path: Path) -> None:
    found: dict[str, Any] = run(
        Sizes(gold=1_500, novice=200, first=1_200, second=150, max_loss=0.05, families=("logistic",)), tmp_path
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
