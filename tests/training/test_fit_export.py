"""From a small outcome table to a bundle that serves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from router import artifact, features
from router.adapters.classifier import OnnxClassifier
from router.domain import BudgetLadder, Certificate, Prompt, ReasoningBudget
from training import certify, fit
from training.cli import cli
from training.dataset import SCHEMA, Outcomes, from_table, prompt_id, splits
from training.export import TOLERANCE, ExportError, build_graph, check, export
from training.fit import CANDIDATES, Fitted, inputs

CAPS = (0, 16, 64, None)
ABOUT: dict[str, Any] = {"backend_fingerprint": "fake", "data_hash": "0" * 64, "metrics": {"prompts": 3}}

Arrays = Sequence[NDArray[np.float32]]


def synthetic(prompts: int) -> pa.Table:
    """Sums: the more terms, the longer the thought, and the more budget an answer needs."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(prompts):
        terms = int(random.integers(2, 12))
        prompt = f"Sum {i}: " + " + ".join(map(str, random.integers(1, 99, terms)))
        length = int(terms * random.uniform(4, 8))
        for order, cap in enumerate(CAPS):
            rows.append(
                {
                    "prompt": prompt,
                    "prompt_id": prompt_id(prompt),
                    "group": prompt_id(prompt),
                    "task": "sums",
                    "backend": "fake",
                    "model": "fake/1",
                    "rung": "high" if cap is None else str(cap),
                    "rung_order": order,
                    "budget_tokens": cap,
                    "sample_id": 0,
                    "correct": float((cap is None or cap >= length) and random.uniform() < 0.95),
                    "label_source": "verifier",
                    "thinking_tokens": length if cap is None else min(cap, length),
                    "finish": "natural",
                }
            )
    return pa.Table.from_pylist(rows, SCHEMA)


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """A small outcome table."""
    return from_table(synthetic(500))


@pytest.fixture(scope="module")
def fitted(outcomes: Outcomes) -> Fitted:
    """Models of its fit split."""
    return fit.fit(splits(outcomes)["fit"])


@pytest.fixture(scope="module")
def graph(fitted: Fitted, outcomes: Outcomes) -> onnxruntime.InferenceSession:
    """The exported graph."""
    return onnxruntime.InferenceSession(build_graph(fitted, outcomes.ladder).SerializeToString())


@pytest.fixture(scope="module")
def odd() -> list[str]:
    """Prompts unlike any seen in training."""
    return ["x", "2 + 2", "word " * 3_000, "9" * 16_000, "漢字 🙂", "\n" * 100, "+".join("1" * 2_000)]


def run(graph: onnxruntime.InferenceSession, prompts: list[str]) -> Arrays:
    """Quality, mean tokens, token quantiles."""
    outputs: Arrays = graph.run(["quality", "mean_tokens", "token_quantiles"], {"features": inputs(prompts)})
    return outputs


def test_the_form_is_chosen_by_cross_validation(fitted: Fitted) -> None:
    assert set(fitted.candidates) == set(CANDIDATES)
    assert fitted.chosen == min(fitted.candidates, key=lambda name: fitted.candidates[name])


def test_fitting_twice_gives_the_same(fitted: Fitted, outcomes: Outcomes) -> None:
    again = fit.fit(splits(outcomes)["fit"])
    assert again.chosen == fitted.chosen
    assert np.array_equal(again.predict_quality(outcomes.prompts), fitted.predict_quality(outcomes.prompts))


def test_something_is_learnt(fitted: Fitted, outcomes: Outcomes) -> None:
    test = splits(outcomes)["test"]
    predicted = fitted.predict_quality(test.prompts)
    known = np.clip(predicted, 1e-6, 1 - 1e-6)
    constant = np.clip(splits(outcomes)["fit"].correct.mean(axis=0), 1e-6, 1 - 1e-6)

    def loss(p: NDArray[np.float64]) -> float:
        return float(-(test.correct * np.log(p) + (1 - test.correct) * np.log(1 - p)).mean())

    assert loss(known) < loss(np.broadcast_to(constant, known.shape))


def test_the_graph_says_what_scikit_learn_says(
    graph: onnxruntime.InferenceSession, fitted: Fitted, outcomes: Outcomes
) -> None:
    quality = run(graph, outcomes.prompts)[0]
    assert np.abs(quality - fitted.predict_quality(outcomes.prompts)).max() <= TOLERANCE


def test_quality_is_a_probability(graph: onnxruntime.InferenceSession, outcomes: Outcomes, odd: list[str]) -> None:
    quality = run(graph, outcomes.prompts + odd)[0]
    assert np.isfinite(quality).all() and quality.min() >= 0 and quality.max() <= 1


def test_token_forecasts_never_exceed_the_cap(
    graph: onnxruntime.InferenceSession, outcomes: Outcomes, odd: list[str]
) -> None:
    _, means, quantiles = run(graph, outcomes.prompts + odd)
    caps = np.array([np.inf if cap is None else cap for cap in CAPS])
    assert (means <= caps + 1e-3).all() and means.min() >= 0
    assert (quantiles <= caps[None, :, None]).all() and quantiles.min() >= 0
    assert np.isfinite(means).all() and np.isfinite(quantiles).all()


def test_token_forecasts_are_ordered(graph: onnxruntime.InferenceSession, outcomes: Outcomes, odd: list[str]) -> None:
    _, means, quantiles = run(graph, outcomes.prompts + odd)
    assert (np.diff(quantiles, axis=2) >= 0).all(), "p50 <= p90 <= p99"
    assert (np.diff(quantiles, axis=1) >= 0).all(), "more budget, no fewer tokens"
    assert (np.diff(means, axis=1) >= -1e-3).all()


def test_token_forecasts_are_about_right(graph: onnxruntime.InferenceSession, outcomes: Outcomes) -> None:
    test = splits(outcomes)["test"]
    _, means, quantiles = run(graph, test.prompts)
    assert means.mean(axis=0) == pytest.approx(test.thinking_tokens.mean(axis=0), rel=0.5, abs=0.5)
    below = (test.thinking_tokens[:, -1] <= quantiles[:, -1, 1]).mean()
    assert 0.75 <= below <= 1


@pytest.fixture
def certificates(fitted: Fitted, outcomes: Outcomes) -> tuple[Certificate, ...]:
    """What the certify split proves."""
    part = splits(outcomes)["certify"]
    return certify.certify(part, fitted.predict_quality(part.prompts))


def exported(fitted: Fitted, outcomes: Outcomes, directory: Path, certificates: tuple[Certificate, ...] = ()) -> None:
    export(fitted, outcomes.ladder, certificates, outcomes.prompts[:200], directory, **ABOUT)


async def test_a_bundle_loads_and_serves_what_training_predicted(
    fitted: Fitted, outcomes: Outcomes, certificates: tuple[Certificate, ...], tmp_path: Path
) -> None:
    exported(fitted, outcomes, tmp_path / "bundle", certificates)
    bundle = artifact.load(tmp_path / "bundle")
    assert bundle.manifest.ladder == outcomes.ladder
    assert bundle.manifest.certificates == certificates
    assert bundle.manifest.backend_fingerprint == "fake"
    assert bundle.manifest.feature_version == features.VERSION
    assert bundle.manifest.metrics == ABOUT["metrics"]
    scores = await OnnxClassifier(bundle).score([Prompt.of(text) for text in outcomes.prompts])
    predicted = fitted.predict_quality(outcomes.prompts)
    assert np.abs(np.array([score.quality for score in scores]) - predicted).max() <= TOLERANCE


def test_a_bundle_replaces_another_and_leaves_nothing_else(fitted: Fitted, outcomes: Outcomes, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "old").write_text("old")
    exported(fitted, outcomes, bundle)
    assert sorted(p.name for p in bundle.iterdir()) == ["manifest.json", "model.onnx", "parity.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


class Liar(Fitted):
    """Predicts otherwise than its own models, by a little more than is tolerated."""

    def predict_quality(self, prompts: list[str]) -> NDArray[np.float64]:
        return super().predict_quality(prompts) + 5 * TOLERANCE


def lying(fitted: Fitted) -> Liar:
    return Liar(**vars(fitted))


def test_an_export_that_disagrees_leaves_the_old_bundle(fitted: Fitted, outcomes: Outcomes, tmp_path: Path) -> None:
    exported(fitted, outcomes, tmp_path / "bundle")
    before = {p.name: p.read_bytes() for p in (tmp_path / "bundle").iterdir()}
    with pytest.raises(ExportError, match="differs from scikit-learn"):
        exported(lying(fitted), outcomes, tmp_path / "bundle")
    assert {p.name: p.read_bytes() for p in (tmp_path / "bundle").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_decision_that_differs_is_refused(fitted: Fitted, outcomes: Outcomes) -> None:
    model, sample = build_graph(fitted, outcomes.ladder), outcomes.prompts[:50]
    quality = fitted.predict_quality(sample)
    gap = float(quality[0, -1] - quality[0, 0])
    edge = Certificate(0.05, 0.1, gap, 1)
    nudged = quality.copy()
    nudged[0, 0] -= TOLERANCE / 2
    nudged[0, 1:-1] -= 1.0
    with pytest.raises(ExportError):
        check(model, sample, nudged, (edge,))


def test_a_broken_export_leaves_no_half_written_bundle(fitted: Fitted, outcomes: Outcomes, tmp_path: Path) -> None:
    unnamed = {"data_hash": "0", "metrics": {}}
    with pytest.raises(KeyError):
        export(fitted, outcomes.ladder, (), outcomes.prompts[:20], tmp_path / "bundle", **unnamed)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("caps", [(0, 8), (None,), (4, 8, 16, 32, 64, 128, 256)], ids=str)
def test_any_ladder_has_its_prices(fitted: Fitted, caps: tuple[int | None, ...], outcomes: Outcomes) -> None:
    """The length model prices rungs that were never run."""
    width = len(outcomes.ladder)
    ladder = BudgetLadder(tuple(ReasoningBudget(str(cap), cap) for cap in (*caps, *[None] * width)[:width]))
    session = onnxruntime.InferenceSession(build_graph(fitted, ladder).SerializeToString())
    means = run(session, outcomes.prompts[:20])[1]
    for column, rung in zip(means.T, ladder.rungs, strict=True):
        assert rung.tokens is None or (column <= rung.tokens + 1e-3).all()


def test_a_rung_that_is_always_right_can_be_fitted(outcomes: Outcomes) -> None:
    part = splits(outcomes)["fit"]
    correct = part.correct.copy()
    correct[:, -1], correct[:, 0] = 1, 0
    always = Outcomes(part.model, part.ladder, part.prompts, part.tasks, part.groups, correct, part.thinking_tokens)
    quality = fit.fit(always).predict_quality(part.prompts)
    assert np.isfinite(quality).all()
    assert quality[:, 0].mean() < 0.1 and quality[:, -1].mean() > 0.9


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """`budget-train fit --json`: outcome file, bundle, report."""
    directory = tmp_path_factory.mktemp("trained")
    outcomes, out = directory / "outcomes.parquet", directory / "deep" / "bundle"
    pq.write_table(synthetic(400), outcomes)
    result = CliRunner().invoke(cli, ["fit", "--outcomes", str(outcomes), "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    return outcomes, out, json.loads(result.stdout)


def test_the_command_writes_a_bundle_and_a_report(trained: tuple[Path, Path, Any]) -> None:
    outcomes, out, report = trained
    bundle = artifact.load(out)
    assert bundle.manifest.backend_fingerprint == "fake/1"
    assert bundle.manifest.data_hash == artifact.digest(outcomes)
    assert [rung["rung"] for rung in report["rungs"]] == ["0", "16", "64", "high"]


def test_evaluating_a_bundle_repeats_its_report(trained: tuple[Path, Path, Any]) -> None:
    outcomes, out, report = trained
    arguments = ["evaluate", "--artifact", str(out), "--outcomes", str(outcomes)]
    result = CliRunner().invoke(cli, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    again = json.loads(result.stdout)
    assert again["prompts"] == report["prompts"]
    for one, other in zip(again["rungs"], report["rungs"], strict=True):
        assert one["accuracy"] == other["accuracy"]
        assert one["calibration_error"] == pytest.approx(other["calibration_error"], abs=1e-3)
    people = CliRunner().invoke(cli, arguments)
    assert f"{report['prompts']} test prompts" in people.stdout
