"""Every family learns what it can express, says probabilities, and takes fractions as labels."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

from tests.support.synthetic import few_steps
from training.model import calibration
from training.model.families import Cure, ModelFamily, Network, PooledLogit, log_loss

Matrix = NDArray[np.float64]
FAMILIES: dict[str, ModelFamily] = {
    "pooled": PooledLogit(1e-4),
    "logistic": Network((), 1e-3, 200),
    "network": Network((8,), 1e-2, 200),
    "members": Network((8,), 1e-2, 100, 2),
    "cure": Cure(1e-4),
}


def truth(prompts: int, seed: int = 0) -> tuple[Matrix, Matrix]:
    """Features and P(correct): a rising logit, for the solvable part."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(prompts, 4))
    solvable = expit(2 + 2 * x[:, :1])
    return x, solvable * expit(x[:, 1:2] * 1.5 + np.array([-1.0, 0.0, 1.0, 2.0]))


def drawn(p: Matrix, seed: int = 1) -> Matrix:
    return (np.random.default_rng(seed).uniform(size=p.shape) < p).astype(float)


@pytest.fixture(autouse=True)
def passes_are_chosen() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_form_beats_the_mean_and_comes_near_the_truth(name: str) -> None:
    x, p = truth(3_000)
    y = drawn(p)
    fresh, expected = truth(3_000, seed=7)
    labels = drawn(expected, seed=8)
    predicted = FAMILIES[name].fit(x, y).predict(fresh)
    assert predicted.shape == expected.shape and predicted.min() >= 0 and predicted.max() <= 1
    floor, constant = log_loss(labels, expected), log_loss(labels, np.broadcast_to(y.mean(axis=0), labels.shape))
    assert log_loss(labels, predicted) < floor + 0.5 * (constant - floor)


@pytest.mark.slow
def test_the_cure_model_fits_best_what_it_is_the_model_of() -> None:
    x, p = truth(3_000)
    y = drawn(p)
    fresh, expected = truth(3_000, seed=7)
    errors = {
        name: float(((family.fit(x, y).predict(fresh) - expected) ** 2).mean()) for name, family in FAMILIES.items()
    }
    assert errors["cure"] == min(errors.values())


def test_rungs_of_a_cure_model_rise() -> None:
    x, p = truth(1_000)
    assert (np.diff(Cure(1e-4).fit(x, drawn(p)).predict(x), axis=1) >= 0).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_fractions_are_learnt_as_fractions(name: str) -> None:
    x, p = truth(700)
    predicted = FAMILIES[name].fit(x, np.round(p * 4) / 4).predict(x)
    assert abs(predicted - p).mean() < 0.08


@pytest.mark.parametrize("name", FAMILIES)
def test_a_rung_with_a_single_class_is_learnt(name: str) -> None:
    x, p = truth(1_000)
    y = drawn(p)
    y[:, -1], y[:, 0] = 1.0, 0.0
    predicted = FAMILIES[name].fit(x, y).predict(x)
    assert np.isfinite(predicted).all()
    assert predicted[:, -1].mean() > 0.8 and predicted[:, 0].mean() < 0.2


def test_fitting_twice_gives_the_same() -> None:
    x, p = truth(300)
    with few_steps():
        for family in FAMILIES.values():
            assert np.array_equal(family.fit(x, drawn(p)).predict(x), family.fit(x, drawn(p)).predict(x))


def folds(n: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    rows = np.arange(n)
    return [(rows[rows % 2 == 0], rows[rows % 2 == 1]), (rows[rows % 2 == 1], rows[rows % 2 == 0])]


def test_calibration_repairs_what_is_too_sure() -> None:
    _, p = truth(4_000)
    y = drawn(p)
    sure = expit(3 * np.log(p / (1 - p)) + 0.5)
    mapped = calibration.fit_if_better(sure, y, folds(len(p)))
    assert mapped is not None
    assert log_loss(y, mapped(sure)) < log_loss(y, p) + 0.002


def test_calibration_is_left_out_where_it_does_not_help() -> None:
    _, p = truth(300)
    helped = [calibration.fit_if_better(p, drawn(p, seed), folds(len(p))) is not None for seed in range(20)]
    assert sum(helped) < 10


def test_calibration_never_turns_the_order_round() -> None:
    _, p = truth(500)
    mapped = calibration.fit(p, 1 - drawn(p))
    assert mapped.up >= 0 and mapped.down >= 0
    grid = np.tile(np.linspace(0, 1, 50)[:, None], (1, p.shape[1]))
    assert (np.diff(mapped(grid), axis=0) >= 0).all()
