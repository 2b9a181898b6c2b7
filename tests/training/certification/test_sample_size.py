"""How many prompts a certificate needs, held against the test that certifies."""

import numpy as np
import pytest

from benchmarks.adoption import table as fixed_rungs
from tests.support.synthetic import outcomes_of
from training.certification.betting import betting_p_value, without_loss
from training.certification.sample_size import in_file, like, losing, needed, table
from training.certification.sequences import SHARE


@pytest.mark.parametrize(("alpha", "prompts"), [(0.01, 410), (0.02, 204), (0.05, 80), (0.1, 39)])
def test_without_loss_one_prompt_fewer_proves_nothing(alpha: float, prompts: int) -> None:
    assert without_loss(alpha, SHARE) == prompts
    assert (
        betting_p_value(np.zeros(prompts), alpha, SHARE) <= SHARE < betting_p_value(np.zeros(prompts - 1), alpha, SHARE)
    )


def test_the_number_of_prompts_proves_what_is_true_nine_times_in_ten() -> None:
    alpha, rate = 0.1, 0.05
    prompts = needed(alpha, losing(rate))
    assert prompts is not None
    random = np.random.default_rng(7)  # other draws than those that found it
    proved = [betting_p_value(losing(rate)(random, prompts), alpha, SHARE) <= SHARE for _ in range(400)]
    assert np.mean(proved) == pytest.approx(0.9, abs=0.05)


def test_the_table_of_fixed_rungs_says_which_can_be_certified() -> None:
    """Sums need longer thoughts the more terms they have, so that the smallest rung never will do."""
    rungs = [line.split() for line in fixed_rungs(outcomes_of(200))]
    assert [rung for rung, *_ in rungs] == ["0", "16", "64"]
    assert rungs[0][-2:] == ["never", "never"] and float(rungs[0][3]) > float(rungs[2][3])


def test_more_loss_needs_more_prompts_and_a_loss_at_the_target_is_never_proved() -> None:
    for row in table((0.05, 0.1)):
        known = [n for n in row.calibration if n is not None]
        assert len(known) == 3 and known == sorted(set(known))
        assert row.prompts == tuple(map(in_file, known))
    assert needed(0.1, losing(0.11)) is None
    seen = np.array([1.0, *[0.0] * 99])
    assert needed(0.05, like(seen)) == pytest.approx(needed(0.05, losing(0.01)), rel=0.2)
