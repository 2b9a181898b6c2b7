"""Every baseline finds the signal that is there for it, and the policies obey their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.special import expit

from router.domain import BudgetLadder, Prompt, ReasoningBudget
from tests.support.synthetic import asked
from training.certification.rules import choose
from training.data.outcomes import Outcomes
from training.evaluation.baselines import Predictor, baselines
from training.evaluation.references import cascade, hindsight, oracle_curve
from training.model.families import log_loss

Matrix = NDArray[np.float64]
NAMES = (
    "task label",
    "prompt length",
    "TF-IDF logit",
    "kNN",
    "logistic",
    "gradient boosting",
    "matrix factorisation",
    "two-parameter IRT",
    "ridge per rung",
)
RUNGS = 3
KINDS = ("add", "prove")


def prompts_of(count: int, seed: int) -> tuple[list[Prompt], list[str]]:
    """Prompts that are easy or hard by their words and by their length, and their tasks."""
    random = np.random.default_rng(seed)
    tasks = [KINDS[kind] for kind in random.integers(0, 2, count)]
    texts = [
        f"{task} number {seed:02}{i:04}" + " and one" * int(random.integers(0, 40)) for i, task in enumerate(tasks)
    ]
    return asked(texts), tasks


def numbers(prompts: list[Prompt]) -> Matrix:
    """Kind, length, and a column that never varies."""
    return np.array([[prompt.text.startswith("prove"), len(prompt.text) / 100, 1.0] for prompt in prompts])


def truth(prompts: list[Prompt]) -> Matrix:
    """P(correct) [prompts, rungs]."""
    hard = numbers(prompts) @ [3.0, 1.2, -3.3]
    return np.asarray(expit(np.array([-1.0, 0.0, 1.0]) - hard[:, None]))


def outcomes_of(prompts: list[Prompt], tasks: list[str], correct: Matrix) -> Outcomes:
    ladder = BudgetLadder(tuple(ReasoningBudget(str(i), i) for i in range(correct.shape[1])))
    ones = np.ones(correct.shape, int)
    halves = np.stack([correct, correct])
    return Outcomes(
        "m", ladder, prompts, tasks, [prompt.text for prompt in prompts], correct, np.zeros(correct.shape), ones, halves
    )


def fitted(correct: Matrix, seed: int = 0) -> dict[str, Predictor]:
    prompts, tasks = prompts_of(len(correct), seed)
    return dict(baselines(outcomes_of(prompts, tasks, correct), numbers, numbers))


def drawn(p: Matrix, seed: int = 0) -> Matrix:
    return (np.random.default_rng(seed).uniform(size=p.shape) < p).astype(float)


@pytest.fixture(scope="module")
def predictors() -> dict[str, Predictor]:
    return fitted(drawn(truth(prompts_of(600, 0)[0])))


def test_the_baselines_are_all_there(predictors: dict[str, Predictor]) -> None:
    assert tuple(predictors) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_beats_the_constant_on_new_prompts(name: str, predictors: dict[str, Predictor]) -> None:
    prompts, tasks = prompts_of(1_000, 1)
    p = truth(prompts)
    predicted = predictors[name](prompts, tasks)
    assert predicted.shape == p.shape
    assert ((predicted > 0) & (predicted < 1)).all()
    constant = np.broadcast_to(p.mean(axis=0), p.shape)
    assert log_loss(p, predicted) < log_loss(p, constant) - 0.02


@pytest.mark.parametrize("name", ["logistic", "matrix factorisation", "two-parameter IRT"])
def test_a_form_that_holds_the_truth_comes_near_it(name: str, predictors: dict[str, Predictor]) -> None:
    prompts, tasks = prompts_of(1_000, 1)
    assert np.abs(predictors[name](prompts, tasks) - truth(prompts)).mean() < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_predicted_one_by_one(name: str, predictors: dict[str, Predictor]) -> None:
    prompts, tasks = prompts_of(5, 2)
    together = predictors[name](prompts, tasks)
    alone = [predictors[name]([prompt], [task])[0] for prompt, task in zip(prompts, tasks, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-9)


def test_an_unseen_task_gets_the_overall_mean(predictors: dict[str, Predictor]) -> None:
    correct = drawn(truth(prompts_of(600, 0)[0]))
    np.testing.assert_allclose(predictors["task label"](asked("?"), ["new"])[0], correct.mean(axis=0))


def test_the_same_outcomes_give_the_same_predictions() -> None:
    prompts, tasks = prompts_of(80, 3)
    one, other = (fitted(drawn(truth(prompts)), 3) for _ in range(2))
    for name in NAMES:
        np.testing.assert_array_equal(one[name](prompts, tasks), other[name](prompts, tasks))


def test_fractions_are_learned_as_fractions() -> None:
    prompts, tasks = prompts_of(200, 4)
    labels = np.where(np.array(tasks) == "add", 0.4, 0.2)[:, None] * np.ones(RUNGS)
    for name, predictor in fitted(labels, 4).items():
        predicted = predictor(prompts, tasks)
        assert predicted.mean() == pytest.approx(labels.mean(), abs=0.03), name
        assert predicted.max() < 0.5, name


def test_a_rung_of_a_single_class_is_predicted_as_that_class() -> None:
    prompts, tasks = prompts_of(200, 5)
    correct = drawn(truth(prompts))
    correct[:, 0], correct[:, -1] = 0, 1
    for name, predictor in fitted(correct, 5).items():
        predicted = predictor(prompts, tasks)
        assert predicted[:, 0].max() < 0.05, name
        assert predicted[:, -1].min() > 0.95, name


def test_a_class_seen_once_crashes_nothing() -> None:
    prompts, tasks = prompts_of(60, 6)
    correct = np.ones((60, RUNGS))
    correct[0, 0], correct[1, 1], correct[2, 2] = 0, 0.5, 0
    for name, predictor in fitted(correct, 6).items():
        assert np.isfinite(predictor(prompts, tasks)).all(), name


def test_factors_let_rungs_prefer_opposite_prompts() -> None:
    prompts, tasks = prompts_of(300, 7)
    kind = np.array(tasks) == "prove"
    correct = drawn(np.where(kind[:, None], [0.1, 0.9], [0.9, 0.1]))
    predicted = fitted(correct, 7)["matrix factorisation"](prompts, tasks)
    assert ((predicted[:, 1] > predicted[:, 0]) == kind).all()


def test_item_response_learns_how_sharply_prompts_tell_rungs_apart() -> None:
    def sharp(prompts: list[Prompt]) -> Matrix:
        steep = np.exp(numbers(prompts) @ [2.0, 0.0, -1.0])
        return np.asarray(expit(steep[:, None] * np.array([-1.0, 0.2, 1.0])))

    prompts, tasks = prompts_of(1_500, 8)
    predicted = fitted(drawn(sharp(prompts)), 8)["two-parameter IRT"](prompts, tasks)
    assert np.abs(predicted - sharp(prompts)).mean() < 0.05


def test_a_ladder_may_have_a_single_rung() -> None:
    prompts, tasks = prompts_of(60, 9)
    for name, predictor in fitted(drawn(truth(prompts))[:, :1], 9).items():
        assert predictor(prompts, tasks).shape == (60, 1), name


shapes = st.tuples(st.integers(1, 8), st.integers(2, 4))
tables = shapes.flatmap(
    lambda shape: st.tuples(
        arrays.arrays(float, shape, elements=st.integers(0, 8).map(lambda i: i / 8)),
        arrays.arrays(float, shape, elements=st.integers(0, 8).map(lambda i: i / 8)),
        arrays.arrays(float, shape, elements=st.integers(0, 1000).map(float)),
    )
)
"""Quality, another quality, and tokens."""


def at(table: Matrix, chosen: NDArray[np.intp]) -> Matrix:
    return np.asarray(table[np.arange(len(table)), chosen])


@given(tables, st.floats(0, 1), st.floats(0, 1))
def test_the_rule_takes_the_best_for_free_and_spends_less_the_more_tokens_weigh(
    given_tables: tuple[Matrix, Matrix, Matrix], one: float, other: float
) -> None:
    quality, _, tokens = given_tables
    assert (at(quality, choose(quality, tokens, 0.0)) == quality.max(axis=1)).all()
    light, heavy = sorted((one, other))
    if heavy - light > 1e-6:  # nearer ones differ by rounding alone
        assert (at(tokens, choose(quality, tokens, heavy)) <= at(tokens, choose(quality, tokens, light))).all()


@given(tables, st.floats(0, 1), st.floats(0, 1))
def test_a_cascade_pays_for_all_it_runs_and_more_the_surer_it_wants_to_be(
    given_tables: tuple[Matrix, Matrix, Matrix], one: float, other: float
) -> None:
    quality, _, tokens = given_tables
    bold, careful = (cascade(quality, 0, threshold, tokens) for threshold in sorted((one, other)))
    assert (bold[1] <= careful[1]).all()
    top = tokens.shape[1] - 1
    for chosen, spent in (bold, careful, cascade(quality, 0, 0.0, tokens), cascade(quality, 0, 1.1, tokens)):
        np.testing.assert_array_equal(spent, tokens[:, 0] + np.where(chosen == top, tokens[:, top], 0))
    assert (cascade(quality, 0, 0.0, tokens)[0] == 0).all()
    assert (cascade(quality, 0, 1.1, tokens)[0] == top).all()


@given(tables)
def test_in_hindsight_nothing_as_right_is_cheaper(given_tables: tuple[Matrix, Matrix, Matrix]) -> None:
    correct, _, tokens = given_tables
    chosen = hindsight(correct, tokens)
    assert (at(correct, chosen) == correct.max(axis=1)).all()
    as_right = correct == correct.max(axis=1, keepdims=True)
    assert (at(tokens, chosen)[:, None] <= np.where(as_right, tokens, np.inf)).all()


@given(tables)
def test_an_oracle_spends_ever_less_and_beats_one_that_sees_something_else(
    given_tables: tuple[Matrix, Matrix, Matrix],
) -> None:
    score, other, tokens = given_tables
    spent, accuracy = oracle_curve(score, score, tokens)
    assert len(spent) == len(accuracy) == 50
    assert (np.diff(spent) <= 1e-9).all()
    assert (np.diff(accuracy) <= 1e-9).all()
    blind_spent, blind_accuracy = oracle_curve(other, score, tokens)
    for weight in range(50):  # of the same weight, so of the same trade of tokens for accuracy
        cheaper, righter = blind_spent[weight] <= spent[weight], blind_accuracy[weight] >= accuracy[weight]
        assert not (cheaper and righter) or np.allclose(
            (blind_spent[weight], blind_accuracy[weight]), (spent[weight], accuracy[weight])
        )


def test_the_probability_oracle_lies_below_hindsight_and_below_the_truth() -> None:
    p = np.random.default_rng(0).beta(1, 1, size=(4_000, RUNGS))
    tokens = np.tile([0.0, 10.0, 40.0], (len(p), 1))
    even, odd = drawn(p, 1), drawn(p, 2)
    split_half = (oracle_curve(even, odd, tokens, 3)[1] + oracle_curve(odd, even, tokens, 3)[1]) / 2
    hindsight_accuracy = oracle_curve(even, even, tokens, 3)[1]
    assert split_half[0] < p.max(axis=1).mean() < hindsight_accuracy[0]
    assert split_half[-1] == pytest.approx(p[:, 0].mean(), abs=0.02)
