"""The command `budget-train`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from router import artifact
from router.errors import RouterError
from training import dataset
from training.dataset import DatasetError, Outcomes
from training.describe import describe

_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable report.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Train the difficulty classifier on outcomes: collect -> validate -> fit -> evaluate."""


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
    dataset.write(table, out)
    click.echo(f"{len(table)} outcomes of {len(items)} prompts: {out}")


@cli.command()
@click.argument("file", type=Path)
@_json
def validate(file: Path, as_json: bool) -> None:
    """Say what is wrong with an outcome file, row and column named; exit code 2 if anything is."""
    faults = dataset.validate(file)
    seen = None if faults else asdict(dataset.overview(file))
    if as_json:
        click.echo(json.dumps({"faults": faults, "overview": seen}))
    for fault in [] if as_json else faults:
        click.echo(f"{file}: {fault.removeprefix(f'{file}: ')}", err=True)
    for name, value in () if as_json or seen is None else seen.items():
        click.echo(f"{name.replace('_', ' '):<16} {value}")
    raise SystemExit(2 if faults else 0)


@cli.command()
@click.option("--outcomes", type=Path, required=True, help="Parquet file of the outcome schema.")
@click.option("--out", type=Path, required=True, help="Directory of the bundle; replaced in one step.")
@click.option("--profile", type=click.Choice(["static", "encoder"]), default="static", show_default=True,
              help="Token vectors and hand features, or a MiniLM encoder (for a GPU) beside them.")  # fmt: skip
@click.option("--compare", is_flag=True, help="Also every baseline, and each task family left out (minutes).")
@_json
def fit(outcomes: Path, out: Path, profile: str, compare: bool, as_json: bool) -> None:
    """Fit, calibrate, certify, evaluate and export a bundle with report.json and report.html."""
    from training import pipeline

    report = pipeline.run(outcomes, out, profile, compare)
    click.echo(json.dumps(report) if as_json else f"{describe(report)}\n\n{out / 'report.html'}")


@cli.command(name="evaluate")
@click.option("--artifact", "directory", type=Path, required=True, help="Directory of the bundle.")
@click.option("--outcomes", type=Path, required=True, help="Parquet file; only its test split is used.")
@_json
def evaluate_(directory: Path, outcomes: Path, as_json: bool) -> None:
    """Judge a bundle on the test split of an outcome file."""
    report = judged(directory, dataset.splits(dataset.read(outcomes))["test"])
    click.echo(json.dumps(report) if as_json else describe(report))


def judged(directory: Path, outcomes: Outcomes) -> dict[str, Any]:
    """The report of a bundle, its ONNX graph included, on outcomes it has not seen."""
    from training import judge
    from training.evaluate import evaluate

    bundle = artifact.load(directory)
    if bundle.manifest.ladder != outcomes.ladder:
        raise DatasetError("the outcomes are of another ladder than the bundle")
    prediction = judge.predict(bundle, outcomes.prompts)
    return evaluate(outcomes, prediction, bundle.manifest.certificates, bundle.manifest.absolute).to_json()


def main() -> NoReturn:
    """Run the command; exit code 2 for data or bundles that are wrong."""
    try:
        cli()
    except (RouterError, DatasetError) as error:
        click.echo(f"budget-train: {error}", err=True)
        raise SystemExit(2) from None
    raise SystemExit(0)
