"""Free zeros: the certificate of few labels is that of all labels."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.certification.test_certify import outcomes_of, predicted
from training.certification import free_zeros, rules, sequences
from training.certification.betting import betting_p_value
from training.certification.certify import ALPHAS, Proofs, certify_relative
from training.certification.free_zeros import Missing
from training.certification.sequences import Sample, policy_sequences, predicted_losses

RUNGS = 4


@pytest.fixture(autouse=True, scope="module")
def thin() -> Iterator[None]:
    """A tenth of the policies shows the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "PRICES", rules.PRICES[::10])
        patch.setattr(sequences, "THRESHOLDS", sequences.THRESHOLDS[::10])
        yield


def world(random: np.random.Generator, prompts: int, lost: float) -> Sample:
    """Nested answers: each prompt has a rung from which on the answer is the top's; below it some answers are lost."""
    ends = random.integers(0, RUNGS, prompts)
    rungs = np.arange(RUNGS)
    same = rungs >= ends[:, None]
    top = random.random(prompts) < 0.8
    other = np.where(random.random((prompts, RUNGS)) < lost, 0.0, 1.0)
    correct = np.where(same, top[:, None], other).astype(float)
    quality = np.clip(0.8 - 0.2 * (ends[:, None] - rungs).clip(0) + random.normal(0, 0.05, (prompts, RUNGS)), 0, 1)
    groups = [f"g{i // 2}" if i % 5 == 0 else f"p{i}" for i in range(prompts)]
    outcomes = replace(outcomes_of(correct, groups), same=same)
    return outcomes, predicted(quality, np.tile(rungs.astype(float) + 1, (prompts, 1)))


def unlabelled(sample: Sample) -> Sample:
    """The same answers without a label."""
    return replace(sample[0], correct=np.full_like(sample[0].correct, np.nan)), sample[1]


def both(samples: list[Sample]) -> tuple[Sample, Sample | None]:
    return samples[0], samples[1] if len(samples) > 1 else None


def proofs_of(samples: list[Sample]) -> Proofs:
    return certify_relative(*both(samples))


def relative(samples: list[Sample]) -> list[Sample]:
    return [(free_zeros.relative(outcomes), prediction) for outcomes, prediction in samples]


def missing(samples: list[Sample], alpha: float) -> list[Missing]:
    """Everything that is missing for a target, per prompt or not."""
    every = relative(samples)
    return [
        *free_zeros.missing(policy_sequences(*both(every)), every, alpha),
        *free_zeros.missing([predicted_losses(alpha, *both(every))], every, alpha),
    ]


def label(samples: list[Sample], full: list[Sample], one: Missing, count: int) -> set[int]:
    """Give so many of the missing labels; returns the prompts."""
    sizes = np.cumsum([0, *(len(outcomes) for outcomes, _ in samples)])
    chosen = np.concatenate(one.policy.chosen)
    for row in one.rows[:count]:
        part = int(np.searchsorted(sizes, row, side="right")) - 1
        for rung in (chosen[row], RUNGS - 1):
            place = row - sizes[part], rung
            samples[part][0].correct[place] = full[part][0].correct[place]
    return set(one.rows[:count].tolist())


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.02, 0.1]), st.integers(20, 200))
def test_with_the_labels_that_are_asked_for_the_certificates_are_those_of_all_labels(
    seed: int, lost: float, batch: int
) -> None:
    random = np.random.default_rng(seed)
    full = [world(random, 400, lost), world(random, 500, lost)]
    few: list[Sample] = [unlabelled(part) for part in full]
    asked: set[int] = set()
    for alpha in ALPHAS[2:]:
        while found := missing(few, alpha):
            asked |= label(few, full, found[0], batch)
    proofs, wanted = proofs_of(relative(few)), proofs_of(relative(full))
    for certificates, others in ((proofs.relative, wanted.relative), (proofs.per_prompt, wanted.per_prompt)):
        assert [one for one in certificates if one.alpha >= 0.02] == [one for one in others if one.alpha >= 0.02]
    differ = sum(int((~outcomes.same).any(axis=1).sum()) for outcomes, _ in full if outcomes.same is not None)
    assert len(asked) <= differ < 900


def test_no_label_is_needed_where_nothing_differs() -> None:
    outcomes, prediction = world(np.random.default_rng(0), 400, 0)
    assert outcomes.same is not None
    silent = unlabelled((replace(outcomes, same=np.ones_like(outcomes.same)), prediction))
    proofs = proofs_of(relative([silent]))
    assert [one.alpha for one in proofs.relative] == [0.02, 0.05, 0.1]
    assert not missing([silent], 0.02)


def test_a_missing_label_never_counts_as_zero() -> None:
    outcomes, prediction = world(np.random.default_rng(0), 400, 0)
    nothing = relative([unlabelled((replace(outcomes, same=None), prediction))])
    proofs = proofs_of(nothing)
    assert proofs.relative == () and proofs.reference is None
    (fixed, learned) = free_zeros.missing(policy_sequences(*both(nothing)), nothing, 0.05)
    assert fixed.least < len(fixed.rows) == 400 or learned.least < len(learned.rows)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.0, 1.0]), min_size=1, max_size=80), st.data())
def test_what_is_not_known_proves_nothing(values: list[float], data: st.DataObject) -> None:
    whole = np.array(values)
    some = np.where(data.draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole))), np.nan, whole)
    assert betting_p_value(some, 0.05) >= betting_p_value(whole, 0.05) - 1e-12


def test_labels_are_asked_for_in_the_order_of_bets_and_no_more_than_needed() -> None:
    full = [world(np.random.default_rng(3), 2_000, 0.0)]
    few = [unlabelled(full[0])]
    (one, *_) = missing(few, 0.05)
    assert 0 < one.least < len(one.rows)
    label(few, full, one, one.least)
    following = missing(few, 0.05)
    assert all(other.policy.threshold != one.policy.threshold or other.sequence != one.sequence for other in following)


def test_agreement_bounds_the_loss_by_what_differs() -> None:
    outcomes, prediction = world(np.random.default_rng(1), 2_000, 0.1)
    agreed = free_zeros.by_agreement(outcomes)
    assert agreed.label_sources == ("agreement",)
    rows = np.arange(len(outcomes))
    for rung in range(RUNGS):
        chosen = np.full(len(outcomes), rung)
        differ = agreed.correct[:, -1] - agreed.correct[rows, chosen]
        assert (differ >= np.abs(outcomes.correct[:, -1] - outcomes.correct[rows, chosen])).all()
    proofs = certify_relative((free_zeros.relative(agreed), prediction))
    labelled = certify_relative((free_zeros.relative(outcomes), prediction))
    assert len(proofs.relative) <= len(labelled.relative)


@pytest.mark.parametrize("known", [0, 1])
def test_a_difference_between_two_labels_counts_even_where_answers_are_the_same(known: int) -> None:
    outcomes, _ = world(np.random.default_rng(1), 10, 0.1)
    correct = np.full((10, RUNGS), float(known))
    correct[:, -1] = 1.0
    given = free_zeros.relative(replace(outcomes, correct=correct, same=np.ones((10, RUNGS), bool)))
    assert (given.correct[:, :-1] == known - 1).all()
