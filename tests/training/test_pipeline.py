"""All stages from a file to a bundle, and what the command says of bad files."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from router.bundle.manifest import digest, load
from router.domain import Prompt
from tests.support.synthetic import few_steps, sums
from training import pipeline
from training.cli import cli
from training.data import dataset
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError, write
from training.data.splits import prompt_id
from training.evaluation import comparison
from training.export import standing
from training.model.embedding import Embedding, embed
from training.model.fit import Inputs, families_named, inputs
from training.trained import Trained

PROMPTS = 700


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    """No test here is about how good a network gets."""
    with few_steps():
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small outcome file."""
    path = tmp_path_factory.mktemp("pipeline") / "outcomes.parquet"
    write(sums(PROMPTS), path)
    return path


@pytest.fixture(scope="module")
def bundle(file: Path) -> Path:
    """What `fit` makes of it."""
    out = file.parent / "bundle"
    result = CliRunner().invoke(
        cli, ["fit", "--outcomes", str(file), "--out", str(out), "--model-family", "pooled logit"]
    )
    assert result.exit_code == 0, result.output
    assert "saved vs top" in result.output and "report.html" in result.output
    assert "replaces the bundle" not in result.stderr
    return out


def test_the_date_of_a_bundle_that_would_be_replaced(bundle: Path, tmp_path: Path) -> None:
    assert str(load(bundle).manifest.created_at.date()) == standing(bundle)
    assert standing(tmp_path) is None


@pytest.fixture(scope="module")
def extracted() -> list[int]:
    """Prompts that inputs were extracted of, call by call."""
    return []


@pytest.fixture(scope="module")
def trained(file: Path, extracted: list[int]) -> Trained:
    """The same without the export, its inputs extracted elsewhere."""

    def extraction(embedding: Embedding, prompts: list[Prompt]) -> Inputs:
        extracted.append(len(prompts))
        return inputs(embedding, prompts)

    return pipeline.train(dataset.read(file), extraction=extraction, candidates=families_named(["pooled logit"]))


def test_a_bundle_serves_and_carries_its_proofs_and_its_report(bundle: Path, file: Path) -> None:
    manifest = load(bundle).manifest
    report = json.loads((bundle / "report.json").read_text())
    assert manifest.data_hash == digest(file)
    assert manifest.backend_fingerprint == "fake/1"
    assert [c["alpha"] for c in report["about"]["certificates"]] == [c.alpha for c in manifest.certificates]
    assert report["about"]["not_certified"] == manifest.not_certified
    assert {v["alpha"] for v in report["violations"]} == {0.005, 0.01, 0.02, 0.05, 0.1}
    assert "<svg" in (bundle / "report.html").read_text()


def test_evaluating_the_bundle_gives_what_its_report_says(bundle: Path, file: Path) -> None:
    arguments = ["evaluate", "--artifact", str(bundle), "--outcomes", str(file), "--json"]
    told = json.loads(CliRunner().invoke(cli, arguments).stdout)
    report = json.loads((bundle / "report.json").read_text())
    # On the file of the fit, what only the fit can know stays.
    assert told["violations"] == report["violations"] and told["about"] == report["about"]
    assert [p["accuracy"] for p in told["policies"]] == [p["accuracy"] for p in report["policies"]]
    assert [r["calibration_error"] for r in told["rungs"]] == pytest.approx(
        [r["calibration_error"] for r in report["rungs"]], abs=1e-4
    )


def test_prices_and_times_of_tokens_are_stated_on_the_page_and_in_the_terminal(bundle: Path, file: Path) -> None:
    page, rates = file.parent / "page.html", ["--price-in", "0.5", "--price-out", "2"]
    arguments = ["evaluate", "--artifact", str(bundle), "--outcomes", str(file), "--html", str(page), *rates]
    result = CliRunner().invoke(cli, arguments, env={"BUDGET_ROUTER_TOKEN_SECONDS": "0.02"})
    assert "test prompts" in result.stdout
    for named, shown in (
        ("seconds until the answer begins", "Time until the answer begins"),
        ("money per 1,000 prompts", "Money for prompts and thinking"),
    ):
        assert named in result.stdout and shown in page.read_text()


def test_a_price_of_prompts_alone_is_refused(bundle: Path, file: Path) -> None:
    arguments = ["evaluate", "--artifact", str(bundle), "--outcomes", str(file), "--price-in", "1"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2 and "--price-in needs --price-out" in result.output


def test_inputs_are_extracted_once_and_may_come_from_elsewhere(
    trained: Trained, extracted: list[int], bundle: Path
) -> None:
    assert extracted == [PROMPTS]
    told = json.loads((bundle / "report.json").read_text())
    assert [policy.accuracy for policy in trained.report.policies] == [p["accuracy"] for p in told["policies"]]
    assert [rung.log_loss for rung in trained.report.rungs] == [rung["log_loss"] for rung in told["rungs"]]


def test_every_method_is_compared_at_one_target(trained: Trained) -> None:
    methods = comparison.methods(trained.parts, trained.fitted)
    names = [method.method for method in methods]
    assert names[0] == "router" and len(set(names)) == len(names)
    for wanted in ("kNN", "task label", "prompt length", "TF-IDF logit", "gradient boosting", "two-parameter IRT"):
        assert wanted in names
    assert any(name.startswith("best fixed rung") for name in names)
    assert any(name.startswith("cascade") for name in names)
    assert methods[0].auroc is not None and methods[0].auroc > 0.7
    assert {method.policy.alpha for method in methods} == {0.02}


def test_a_family_is_left_out_of_training_and_judged_alone(trained: Trained) -> None:
    (row,) = comparison.leave_one_family_out(
        {name: with_families(part) for name, part in trained.parts.items()}, trained.fitted
    )[:1]
    assert row["task"] == "even" and row["prompts"] > 20
    assert row["log_loss"] > 0


def with_families(part: Outcomes) -> Outcomes:
    """The same prompts, said to be of two families."""
    families = [["even", "odd"][int(prompt_id(prompt.text), 16) % 2] + "/x" for prompt in part.prompts]
    return Outcomes(**{**vars(part), "tasks": families})


def test_labels_of_both_splits_are_counted(trained: Trained) -> None:
    (row,) = comparison.label_efficiency(trained.parts, trained.fitted, (100,))
    assert row["labelled"] == 100


def tried(
    arguments: list[str], capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str]:
    """Exit code and standard error of the whole command."""
    from training.__main__ import main

    monkeypatch.setattr("sys.argv", ["budget-train", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capture.readouterr().err


def test_a_graph_that_differs_is_one_line_and_exit_code_2_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "few.parquet", tmp_path / "bundle"
    write(sums(120), path)
    monkeypatch.setattr("training.export.TOLERANCE", 1e-12)  # which no precision reaches
    code, error = tried(
        ["fit", "--outcomes", str(path), "--out", str(out), "--form", "pooled logit"], capsys, monkeypatch
    )
    *stages, last = error.splitlines()
    assert code == 2 and last.startswith("budget-train: ONNX Runtime and scikit-learn differ by")
    assert [line.partition(":")[0] for line in stages] == ["fit", "stopping", "fit", "certify", "re-splits", "export"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["few.parquet"]


def test_a_model_too_steep_for_32_bits_is_exported_in_64_and_what_it_cannot_do_is_said_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "few.parquet", tmp_path / "bundle"
    write(sums(120), path)  # so few prompts that the fitted logit is too steep for 32 bits
    code, error = tried(
        ["fit", "--outcomes", str(path), "--out", str(out), "--form", "pooled logit"], capsys, monkeypatch
    )
    assert code == 0 and b"precise" in (out / "model.onnx").read_bytes()
    engine, default = (line for line in error.splitlines() if line.startswith("warning: "))
    assert "'fake/1' is not an engine's fingerprint" in engine and "--fingerprint-from URL" in engine
    assert "a loss of at most 0.02, the default, is not certified" in default and "more in the file" in default
    refused = load(out).manifest.not_certified
    assert refused["loss of at most 0.02"] in default
    assert "`budget-train fit --fingerprint-from URL`" in load(out).manifest.foreign_to("vllm-1/m/0123abcd/native")


def test_validation_warns_of_what_no_service_would_use_and_of_too_few_prompts(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, error = tried(["validate", str(file)], capsys, monkeypatch)
    engine, size = error.splitlines()
    assert code == 0 and "'fake/1' is not an engine's fingerprint" in engine
    assert "is certified for a fixed rung at most, unless some prompts gain" in size
    assert "204 calibration prompts where nothing is lost or gained, and the file has" in size
    write(sums(1_300).with_columns(model=pl.lit("vllm-1/m/0123abcd/native")), tmp_path / "many.parquet")
    code, error = tried(["validate", str(tmp_path / "many.parquet")], capsys, monkeypatch)
    assert (code, error) == (0, "")


def test_evaluating_outcomes_of_another_engine_is_warned_of(
    bundle: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = ["evaluate", "--artifact", str(bundle), "--outcomes"]
    assert tried([*evaluate, str(file)], capsys, monkeypatch) == (0, "")
    path = tmp_path / "other.parquet"
    pl.read_parquet(file).with_columns(model=pl.lit("fake/2")).write_parquet(path)
    code, error = tried([*evaluate, str(path)], capsys, monkeypatch)
    assert (code, error.count("\n")) == (0, 1) and "about fake/1, the outcomes are those of fake/2" in error


def test_a_ladder_that_differs_is_said_rung_by_rung_and_a_whole_file_may_be_evaluated(
    bundle: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, path = ["evaluate", "--artifact", str(bundle), "--outcomes"], tmp_path / "other.parquet"
    other = pl.col("rung").replace({"16": "17"})
    pl.read_parquet(file).with_columns(rung=other).write_parquet(path)
    code, error = tried([*evaluate, str(path)], capsys, monkeypatch)
    assert code == 2 and "rung 16 in the bundle alone; rung 17 (at most 16 tokens) in the outcomes alone" in error
    result = CliRunner().invoke(cli, [*evaluate, str(file), "--whole", "--json"])
    assert json.loads(result.stdout)["prompts"] == PROMPTS
    assert "was fitted on most prompts of this file" in result.stderr


@pytest.mark.parametrize("command", [["fit", "--out", "bundle"], ["evaluate", "--artifact", "bundle"]])
def test_a_second_outcome_file_is_refused(command: list[str], file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, [*command, "--outcomes", str(file), "--outcomes", str(tmp_path / "other")])
    assert result.exit_code == 2
    assert "--outcomes is given twice" in result.stderr


def test_a_model_family_that_does_not_exist_is_refused_by_name(file: Path, tmp_path: Path) -> None:
    arguments = ["fit", "--outcomes", str(file), "--out", str(tmp_path / "bundle"), "--model-family", "pooled logit"]
    result = CliRunner().invoke(cli, [*arguments, "--model-family", "square"])
    assert result.exit_code == 2
    assert "no model family 'square'; the families are 'pooled logit', 'cure'" in result.stderr


def test_validate_says_what_is_in_a_good_file(file: Path) -> None:
    result: Result = CliRunner().invoke(cli, ["validate", str(file), "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["faults"] == []
    assert told["overview"]["prompts"] == PROMPTS and sum(told["overview"]["splits"].values()) == PROMPTS


def test_a_model_family_that_is_not_finite_is_refused(trained: Trained) -> None:
    broken = vars(trained.fitted) | {"log_losses": {trained.fitted.chosen: float("nan")}}
    with pytest.raises(DatasetError, match="not finite"):
        pipeline._require_finite(type(trained.fitted)(**broken), trained.parts["fit"])


def test_the_vector_stands_behind_the_hand_features(trained: Trained) -> None:
    prompts = trained.parts["test"].prompts[:5]
    x = trained.fitted.extract(prompts)
    vectors = embed(trained.fitted.embedding, prompts)
    assert np.array_equal(x[:, -vectors.shape[1] :], vectors)
