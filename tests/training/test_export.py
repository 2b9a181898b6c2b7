"""From a small outcome table to a bundle that serves."""

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from router.bundle import features
from router.bundle.manifest import load
from router.domain import Certificate, Message, Prompt, Role
from router.scoring.onnx import OnnxClassifier
from router.scoring.outputs import NAMES, VECTOR
from tests.support.synthetic import CAPS, NO_REPORT, asked, few_steps, outcomes_of
from training.certification.certify import Proofs, certify
from training.data.dataset import splits
from training.data.outcomes import Outcomes
from training.export import TOLERANCE, ExportError, check, export
from training.model import calibration, embedding, fit, inference
from training.model.families import Cure, ModelFamily, Network, PooledLogit, log_loss
from training.model.fit import CANDIDATES, Fitted
from training.model.head_graph import build_graph
from training.prediction import Prediction

NOTHING = Proofs((), (), {})
ABOUT: dict[str, Any] = {
    "backend_fingerprint": "fake",
    "data_hash": "0" * 64,
    "metrics": {"prompts": 3},
    "report": NO_REPORT,
}
QUICK: dict[str, ModelFamily] = {
    "pooled logit": PooledLogit(1e-3),
    "cure": Cure(1e-3),
    "network": Network((8,), 1.0, 40, 2),
}


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """A small outcome table."""
    return outcomes_of(500)


@pytest.fixture(scope="module")
def fitted(outcomes: Outcomes) -> Fitted:
    """Models of its fit split."""
    parts = splits(outcomes)
    with few_steps(300):
        made = fit.fit(parts["fit"], embedding.static(), candidates=QUICK)
        return made.with_conformal_tokens(parts["certify"]).with_novelty(parts["certify"].prompts)


def session_of(fitted: Fitted, outcomes: Outcomes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(build_graph(fitted, outcomes.ladder).SerializeToString())


def served(fitted: Fitted, outcomes: Outcomes, prompts: Sequence[Prompt]) -> Prediction:
    """What the exported graph says."""
    embedded = fitted.embedding
    session = session_of(fitted, outcomes)
    return inference.run(session, embedded.tokenizer, embedded.max_tokens, list(prompts), fitted.far_beyond)


ODD = asked(["x", "2 + 2", "word " * 3_000, "9" * 16_000, "漢字 🙂", "\n" * 100, "+".join("1" * 2_000)])
"""Prompts unlike any seen in training."""


def test_the_form_is_chosen_by_cross_validation(fitted: Fitted) -> None:
    assert set(fitted.log_losses) == set(QUICK) - {"cure"}, "a cure model needs thousands of prompts"
    assert fitted.chosen == min(fitted.log_losses, key=lambda name: fitted.log_losses[name])


@pytest.mark.slow
def test_fitting_twice_gives_the_same(outcomes: Outcomes) -> None:
    with few_steps():
        one, other = (fit.fit(splits(outcomes)["fit"], embedding.static(), candidates=QUICK) for _ in range(2))
    assert one.chosen == other.chosen
    for ours, theirs in zip(
        *(vars(both.predict(outcomes.prompts[:50])).values() for both in (one, other)), strict=True
    ):
        assert np.array_equal(ours, theirs)


def test_something_is_learnt(fitted: Fitted, outcomes: Outcomes) -> None:
    test = splits(outcomes)["test"]
    constant = np.clip(splits(outcomes)["fit"].correct.mean(axis=0), 1e-6, 1 - 1e-6)
    predicted = fitted.predict(test.prompts).quality
    assert log_loss(test.correct, predicted) < log_loss(test.correct, np.broadcast_to(constant, predicted.shape))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("family", [PooledLogit(1e-3), Cure(1e-3), Network((), 1.0, 40), CANDIDATES["network 64-32"]])
@pytest.mark.parametrize("calibrated", [True, False])
def test_the_graph_says_what_training_says(
    family: ModelFamily, calibrated: bool, fitted: Fitted, outcomes: Outcomes
) -> None:
    part = splits(outcomes)["fit"]
    scaled = fitted.scale.transform(fitted.extract(part.prompts))
    with few_steps():
        head = family.fit(scaled, part.correct)
    beta = calibration.fit(head.predict(scaled), part.correct) if calibrated else None
    other = replace(fitted, head=head, beta=beta)
    ours, theirs = served(other, outcomes, outcomes.prompts), other.predict(outcomes.prompts)
    assert np.abs(ours.quality - theirs.quality).max() <= TOLERANCE
    assert np.allclose(ours.mean_tokens, theirs.mean_tokens, rtol=1e-3, atol=1e-2)
    assert np.allclose(ours.token_quantiles, theirs.token_quantiles, rtol=1e-3, atol=1e-2)


def test_quality_stays_inside_what_the_number_of_prompts_can_tell(fitted: Fitted, outcomes: Outcomes) -> None:
    quality = served(fitted, outcomes, outcomes.prompts + ODD).quality
    assert quality.min() >= fitted.bound - 1e-6 and quality.max() <= 1 - fitted.bound + 1e-6
    assert fitted.bound == 1 / (len(splits(outcomes)["fit"]) + 2)


def test_token_forecasts_are_ordered_and_never_exceed_the_cap(fitted: Fitted, outcomes: Outcomes) -> None:
    prediction = served(fitted, outcomes, outcomes.prompts + ODD)
    caps = np.array([np.inf if cap is None else cap for cap in CAPS])
    assert (prediction.mean_tokens <= caps + 1e-3).all() and prediction.mean_tokens.min() >= 0
    assert (prediction.token_quantiles <= caps[None, :, None]).all() and prediction.token_quantiles.min() >= 0
    assert (np.diff(prediction.token_quantiles, axis=2) >= 0).all(), "p50 <= p90 <= p99"


def test_token_forecasts_are_about_right(fitted: Fitted, outcomes: Outcomes) -> None:
    test = splits(outcomes)["test"]
    prediction = served(fitted, outcomes, test.prompts)
    assert prediction.mean_tokens.mean(axis=0) == pytest.approx(test.thinking_tokens.mean(axis=0), rel=0.5, abs=0.5)
    for level, least in ((1, 0.75), (2, 0.9)):
        assert (test.thinking_tokens[:, -1] <= prediction.token_quantiles[:, -1, level]).mean() >= least


def without_tokens(outcomes: Outcomes, rung: int) -> Outcomes:
    tokens = outcomes.thinking_tokens.copy()
    tokens[:, rung] = np.nan
    return replace(outcomes, thinking_tokens=tokens)


async def test_rungs_without_token_counts_have_no_forecast(outcomes: Outcomes, tmp_path: Path) -> None:
    partial = without_tokens(outcomes, 2)
    with few_steps():
        blind = fit.fit(splits(partial)["fit"], embedding.static(), candidates=fit.families_named(["pooled logit"]))
    export(blind, partial.ladder, NOTHING, partial.prompts[:50], tmp_path / "bundle", **ABOUT)
    (score,) = await OnnxClassifier(load(tmp_path / "bundle")).score([Prompt.of("1 + 2")])
    assert [mean is None for mean in score.mean] == [False, False, True, False]
    prediction = blind.predict(partial.prompts[:5])
    assert (prediction.cost == np.arange(4)).all(), "the position is the cost"


@pytest.fixture
def proofs(fitted: Fitted, outcomes: Outcomes) -> Proofs:
    """What the certify split proves."""
    part = splits(outcomes)["certify"]
    return certify((part, fitted.predict(part.prompts)))


def exported(fitted: Fitted, outcomes: Outcomes, directory: Path, proofs: Proofs = NOTHING) -> None:
    export(fitted, outcomes.ladder, proofs, outcomes.prompts[:200], directory, **ABOUT)


async def test_a_bundle_loads_and_serves_what_training_predicted(
    fitted: Fitted, outcomes: Outcomes, proofs: Proofs, tmp_path: Path
) -> None:
    exported(fitted, outcomes, tmp_path / "bundle", proofs)
    bundle = load(tmp_path / "bundle")
    manifest = bundle.manifest
    assert manifest.ladder == outcomes.ladder
    assert (manifest.certificates, manifest.absolute) == (proofs.relative, proofs.absolute)
    assert manifest.not_certified == proofs.refused and manifest.not_certified
    assert (manifest.backend_fingerprint, manifest.metrics) == ("fake", ABOUT["metrics"])
    assert (manifest.feature_version, manifest.text_encoder) == (features.VERSION, "static")
    scores = await OnnxClassifier(bundle).score(outcomes.prompts)
    predicted = fitted.predict(outcomes.prompts).quality
    assert np.abs(np.array([score.quality for score in scores]) - predicted).max() <= TOLERANCE


async def test_conversations_prove_that_another_machine_reads_them_alike(
    fitted: Fitted, outcomes: Outcomes, tmp_path: Path
) -> None:
    turns = Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "1 + 2"), Message(Role.ASSISTANT, "3")
    sample = [Prompt((*turns, prompt.messages[0])) for prompt in outcomes.prompts[:8]] + outcomes.prompts[:8]
    export(fitted, outcomes.ladder, NOTHING, sample, tmp_path / "bundle", **ABOUT)
    bundle = load(tmp_path / "bundle")
    assert bundle.parity.prompts == sample
    assert len(await OnnxClassifier(bundle).score(sample)) == len(sample)
    written = json.loads((tmp_path / "bundle" / "parity.json").read_text())
    assert written["prompts"][0][0] == {"role": "system", "content": "Be brief."}
    assert written["prompts"][-1] == outcomes.prompts[7].text


FILES = ["manifest.json", "model.onnx", "parity.json", "report.html", "report.json", "tokenizer.json"]


def test_a_bundle_replaces_another_and_leaves_nothing_else(fitted: Fitted, outcomes: Outcomes, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "old").write_text("old")
    exported(fitted, outcomes, bundle)
    assert sorted(p.name for p in bundle.iterdir()) == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_what_holds_prompts_is_its_owners_alone(fitted: Fitted, outcomes: Outcomes, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        exported(fitted, outcomes, tmp_path / "bundle")
    finally:
        os.umask(before)
    private = {file.name for file in (tmp_path / "bundle").iterdir() if stat.S_IMODE(file.stat().st_mode) == 0o600}
    assert private == {"parity.json", "report.html", "report.json"}
    assert load(tmp_path / "bundle").parity.prompts


class Liar(Fitted):
    """Predicts otherwise than its own models, by a little more than is tolerated."""

    def predict(self, prompts: list[Prompt]) -> Prediction:
        told = super().predict(prompts)
        return replace(told, quality=told.quality + 5 * TOLERANCE)


def test_an_export_that_disagrees_leaves_the_old_bundle(fitted: Fitted, outcomes: Outcomes, tmp_path: Path) -> None:
    exported(fitted, outcomes, tmp_path / "bundle")
    before = {p.name: p.read_bytes() for p in (tmp_path / "bundle").iterdir()}
    with pytest.raises(ExportError, match="ONNX Runtime and scikit-learn differ by"):
        exported(Liar(**vars(fitted)), outcomes, tmp_path / "bundle")
    assert {p.name: p.read_bytes() for p in (tmp_path / "bundle").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_decision_that_differs_is_refused(fitted: Fitted, outcomes: Outcomes) -> None:
    """Predictions that agree within the tolerance, on either side of a threshold."""
    model, sample = build_graph(fitted, outcomes.ladder), outcomes.prompts[:50]
    expected = fitted.predict(sample)
    edge = Certificate(0.1, 0.1, float(expected.quality[0, -1]) - TOLERANCE / 4, 1)
    nudged = replace(expected, quality=expected.quality.copy())
    nudged.quality[0, -1] -= TOLERANCE / 2
    with pytest.raises(ExportError, match="1 of 50 decisions differ"):
        check(fitted, model, sample, nudged, Proofs((), (edge,), {}))


def test_the_graph_calls_the_same_prompts_far(fitted: Fitted, outcomes: Outcomes) -> None:
    prompts = [*ODD, *outcomes.prompts[:100]]
    expected, seen = fitted.predict(prompts).far, served(fitted, outcomes, prompts).far
    assert expected is not None and seen is not None and expected.tolist() == seen.tolist()
    assert expected[: len(ODD)].all() and not expected[len(ODD) :].all()


def test_a_graph_without_a_limit_calls_nothing_far(fitted: Fitted, outcomes: Outcomes) -> None:
    older = replace(fitted, far_beyond=None)
    assert older.predict(ODD).far is None and served(older, outcomes, ODD).far is None
    assert [output.name for output in session_of(older, outcomes).get_outputs()] == [*NAMES, VECTOR]


def test_a_prompt_at_the_very_limit_may_lie_on_either_side(fitted: Fitted, outcomes: Outcomes) -> None:
    model, sample = build_graph(fitted, outcomes.ladder), outcomes.prompts[:200]
    expected = fitted.predict(sample)
    known = expected.far
    assert known is not None
    price = Certificate(0.1, 0.1, 0.5, 1)

    def judged(moved: int) -> None:
        """So many prompts are far for scikit-learn alone; at this price no other prompt gets the top rung."""
        far = known ^ (np.arange(len(sample)) < moved)
        check(fitted, model, sample, replace(expected, far=far), Proofs((price,), (), {}))

    judged(0)
    judged(2)
    with pytest.raises(ExportError, match="3 of 200 prompts are far for one of both only"):
        judged(3)


def test_half_precision_may_change_one_decision_in_a_hundred(fitted: Fitted, outcomes: Outcomes) -> None:
    half = replace(fitted, embedding=replace(fitted.embedding, precision="fp16"))
    model, sample = build_graph(fitted, outcomes.ladder), outcomes.prompts[:100]
    expected = fitted.predict(sample)
    best = np.argsort(expected.quality[:, -1])[::-1]

    def judged(moved: int, who: Fitted) -> None:
        """Predictions of so many prompts lie on the other side of a threshold."""
        edge = float(expected.quality[best[:moved], -1].min()) - TOLERANCE / 2
        nudged = replace(expected, quality=expected.quality.copy())
        nudged.quality[best[:moved], -1] = edge - 2 * TOLERANCE
        check(who, model, sample, nudged, Proofs((), (Certificate(0.1, 0.1, edge, 1),), {}))

    judged(1, half)
    with pytest.raises(ExportError, match="2 of 100 decisions differ"):
        judged(2, half)
    with pytest.raises(ExportError, match="ONNX Runtime and scikit-learn differ by"):
        judged(1, fitted)


def test_a_broken_export_leaves_nothing(fitted: Fitted, outcomes: Outcomes, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        export(fitted, outcomes.ladder, NOTHING, outcomes.prompts[:20], tmp_path / "bundle", data_hash="0", metrics={})
    assert list(tmp_path.iterdir()) == []
