"""The command `budget-train`."""

import json
from pathlib import Path
from typing import NoReturn

import click
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

from router import artifact
from router.errors import RouterError
from training import certify, dataset, evaluate
from training.dataset import DatasetError, Outcomes
from training.evaluate import Report
from training.fit import fit as fit_models
from training.fit import inputs

SAMPLE = 1_000
"""Prompts on which the exported graph must agree with scikit-learn."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Train the difficulty classifier on outcomes: collect -> fit -> evaluate."""


@cli.command()
@click.option("--model", type=Path, default=Path("router/models/pocket"), show_default=True, help="Embedded model.")
@click.option("--per-level", default=180, show_default=True, help="Prompts of each family and level.")
@click.option("--seed", default=11, show_default=True, help="Seed of the task generators.")
@click.option("--out", type=Path, required=True, help="Parquet file to write.")
def collect(model: Path, per_level: int, seed: int, out: Path) -> None:
    """Run the pocket reasoner on held-out prompts at every rung and write the outcomes."""
    from router.adapters.backends.pocket import PocketModel
    from training import collect as stage

    items = stage.held_out_items(per_level, seed)
    table = stage.collect(PocketModel.load(model), items, stage.LADDER)
    _write(table, out)
    click.echo(f"{table.num_rows} outcomes of {len(items)} prompts: {out}")


@cli.command()
@click.option("--outcomes", type=Path, required=True, help="Parquet file of the outcome schema.")
@click.option("--out", type=Path, required=True, help="Directory of the bundle; replaced in one step.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable report.")
def fit(outcomes: Path, out: Path, as_json: bool) -> None:
    """Fit, certify, test and export a bundle."""
    from training.export import export

    everything = dataset.read(outcomes)
    parts = dataset.splits(everything)
    fitted = fit_models(parts["fit"])
    certificates = certify.certify(parts["certify"], fitted.predict_quality(parts["certify"].prompts))
    report = evaluate.evaluate(parts["test"], fitted.predict_quality(parts["test"].prompts), certificates)
    metrics = report.to_json() | {"form": fitted.chosen, "log_loss": fitted.candidates}
    sample = [everything.prompts[i] for i in np.random.default_rng(0).permutation(len(everything))[:SAMPLE]]
    about = {"backend_fingerprint": everything.model, "data_hash": artifact.digest(outcomes), "metrics": metrics}
    export(fitted, everything.ladder, certificates, sample, out, **about)
    click.echo(json.dumps(metrics) if as_json else describe(report))


@cli.command(name="evaluate")
@click.option("--artifact", "directory", type=Path, required=True, help="Directory of the bundle.")
@click.option("--outcomes", type=Path, required=True, help="Parquet file; only its test split is used.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable report.")
def evaluate_(directory: Path, outcomes: Path, as_json: bool) -> None:
    """Judge a bundle on the test split of an outcome file."""
    report = judge(directory, dataset.splits(dataset.read(outcomes))["test"])
    click.echo(json.dumps(report.to_json()) if as_json else describe(report))


def judge(directory: Path, outcomes: Outcomes) -> Report:
    """The report of a bundle, its ONNX graph included, on outcomes it has not seen."""
    bundle = artifact.load(directory)
    if bundle.manifest.ladder != outcomes.ladder:
        raise DatasetError("the outcomes are of another ladder than the bundle")
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    (quality,) = session.run(["quality"], {"features": inputs(outcomes.prompts)})
    return evaluate.evaluate(outcomes, quality.astype(float), bundle.manifest.certificates)


def describe(report: Report) -> str:
    """The report as text."""
    lines = [f"{report.prompts} test prompts, {report.never_solved:.1%} never solved", ""]
    lines.append(f"{'rung':>6} {'accuracy':>9} {'thinking':>9} {'ECE':>6} {'AUROC':>6}")
    for r in report.rungs:
        auroc = "-" if r.auroc is None else f"{r.auroc:.3f}"
        lines.append(f"{r.rung:>6} {r.accuracy:>9.3f} {r.thinking_tokens:>9.1f} {r.calibration_error:>6.3f} {auroc:>6}")
    lines += ["", f"{'target':>6} {'accuracy':>9} {'thinking':>9} {'loss':>7} {'saved vs top':>13} {'vs hull':>8}"]
    for p in report.policies:
        hull = "-" if p.saved_against_hull is None else f"{p.saved_against_hull:.1%}"
        saved = f"{p.saved_against_top:>13.1%} {hull:>8}"
        lines.append(f"{p.alpha:>6g} {p.accuracy:>9.3f} {p.thinking_tokens:>9.1f} {p.loss:>7.3f} {saved}")
    if not report.policies:
        lines.append("nothing could be certified: the router would always choose the top rung")
    return "\n".join(lines)


def _write(table: pa.Table, out: Path) -> None:
    """Write beside the target, then move: nothing half-written is left."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_suffix(".tmp")
    pq.write_table(table, aside, compression="zstd", compression_level=19)
    aside.rename(out)


def main() -> NoReturn:
    """Run the command; exit code 2 for data or bundles that are wrong."""
    try:
        cli()
    except (RouterError, DatasetError) as error:
        click.echo(f"budget-train: {error}", err=True)
        raise SystemExit(2) from None
    raise SystemExit(0)
