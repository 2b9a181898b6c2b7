"""Certificates that hold in every family of tasks."""

from dataclasses import replace

import numpy as np
import pytest

from tests.training.certification.test_certify import level, outcomes_of, useless
from training.certification.betting import DELTA
from training.certification.certify import certify
from training.certification.pooling import OTHERS, family, pools
from training.certification.sequences import CandidatePolicy, PolicySequence, Sample, policy_sequences


def in_tasks(sample: Sample, tasks: list[str]) -> Sample:
    return replace(sample[0], tasks=tasks), sample[1]


def two_tasks(prompts: int, loss: float, seed: int = 0) -> Sample:
    """A middle rung that loses nothing in words, which are three prompts of four, and this much in sums."""
    words = level(prompts * 3, [0.3, 0.8, 0.8], seed)
    sums = level(prompts, [0.3, 0.8 - loss, 0.8], seed + 1)
    return in_tasks(useless(np.concatenate([words, sums])), ["words/1"] * prompts * 3 + ["sums/2"] * prompts)


def test_a_mean_that_hides_a_loss_in_one_task_is_not_certified_per_task() -> None:
    sample = two_tasks(1_000, 0.11)
    assert 0.05 in {one.alpha for one in certify(sample).relative}
    proofs = certify(sample, per_task=True)
    assert 0.05 not in {one.alpha for one in proofs.relative}
    assert "in 'sums'" in proofs.refused["loss of at most 0.05"]


def test_each_task_has_a_certificate_of_the_policy_that_is_served() -> None:
    proofs = certify(two_tasks(1_000, 0.0), per_task=True)
    assert {(one.alpha, one.rung) for one in proofs.relative} >= {(0.02, 1), (0.05, 1)}
    told = {(one.task, one.prompts, one.families) for one in proofs.per_task if one.alpha == 0.02}
    assert told == {("words", 3_000, ("words",)), ("sums", 1_000, ("sums",))}
    assert certify(two_tasks(1_000, 0.0)).per_task == ()


def test_small_tasks_are_pooled_until_they_could_prove_something() -> None:
    parts = pools(["a"] * 500 + ["b"] * 300 + ["c"] * 20 + ["d"] * 5, 200)
    assert {name: len(rows) for name, rows in parts.items()} == {"a": 500, OTHERS: 325}
    assert {name: len(rows) for name, rows in pools(["a"] * 500 + ["b"] * 300, 200).items()} == {"a": 500, "b": 300}
    assert {name: len(rows) for name, rows in pools(["a"] * 9 + ["b"] * 3, 200).items()} == {OTHERS: 12}
    assert {len(rows) for rows in pools(["a"] * 500 + ["b"] * 3 + ["c"] * 250, 200).values()} == {500, 253}


def test_a_task_that_loses_just_too_much_is_certified_no_more_often_than_promised() -> None:
    random, draws, falsely = np.random.default_rng(0), 400, 0
    for _ in range(draws):
        lost = random.random(600) < np.repeat([0.0, 0.1 + 1e-9], 300)
        policy = CandidatePolicy(lost.astype(float), 0.0, 0.0)
        sequence = PolicySequence("", [policy], delta=DELTA, tasks=("words",) * 300 + ("sums",) * 300)
        falsely += not isinstance(sequence.proved(0.1), str)
    assert 0 < falsely / draws <= DELTA


def test_a_group_of_prompts_counts_once_in_its_task() -> None:
    outcomes = replace(outcomes_of(np.ones((6, 2)), ["x", "x", "y", "y", "z", "z"]), tasks=list("aabbcc"))
    _, prediction = useless(np.ones((6, 2)))
    fixed, learned = policy_sequences((outcomes, prediction), per_task=True)
    assert sorted(fixed.tasks) == sorted(learned.tasks) == ["a", "b", "c"]


@pytest.mark.parametrize(("task", "wanted"), [("sums/3", "sums"), ("a/b/c", "a/b"), ("plain", "plain"), ("", "")])
def test_a_family_is_what_stands_before_the_last_slash(task: str, wanted: str) -> None:
    assert family(task) == wanted
