"""The re-split experiment on a known truth."""

from dataclasses import replace

import pytest

from tests.support.synthetic import world
from training.certification.betting import DELTA
from training.certification.violation import resplit


@pytest.mark.parametrize("alpha", [pytest.param(0.05, marks=pytest.mark.slow), 0.1])
def test_certificates_are_violated_no_more_often_than_promised(alpha: float) -> None:
    found = resplit(world(3_000), alpha, resplits=200)
    assert found.violated <= DELTA + 3 * (DELTA * (1 - DELTA) / 200) ** 0.5
    assert found.certify == 1_000 and found.uncertified < 1
    assert found.utilisation is not None and 0 < found.utilisation <= 1.05


def test_lying_predictions_are_never_certified() -> None:
    pool, prediction = world(2_000)
    lying = replace(prediction, quality=prediction.quality[:, ::-1].copy())
    found = resplit((pool, lying), 0.02, resplits=50)
    assert found.uncertified == 1.0 and found.violated == 0.0


def test_a_target_per_prompt_is_violated_no_more_often_than_promised_though_forecasts_are_too_flat() -> None:
    """Where shorter rungs lose ten times as much as is predicted, the target itself would be broken."""
    pool, prediction = world(3_000)
    top = prediction.quality[:, -1:]
    flat = replace(prediction, quality=top - 0.1 * (top - prediction.quality))
    found = resplit((pool, flat), 0.1, resplits=200, per_prompt=True)
    assert found.violated <= DELTA + 3 * (DELTA * (1 - DELTA) / 200) ** 0.5
    assert found.certify == 1_000 and found.uncertified < 1
    assert found.utilisation is not None and 0 < found.utilisation < 1, "the test stops before the target itself"
