"""`budget-train validate`, `fit` and `evaluate`: from an outcome file to a bundle and its report."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.answer_keys import KINDS
from router.cli.strict import FOLDER, NEW_FOLDER, Command, File, NewFile
from training.cli import model_families
from training.cli.cluster import Decorated, executor_options, ray_on
from training.options import ENGINES, backend_key, json_output, outcomes_file, rates, require, soft_budgets, warn

# Stages are imported when they run: Polars and scikit-learn take seconds, and help must work without them.
if TYPE_CHECKING:
    from training.data.outcomes import Outcomes
    from training.evaluation.spending import Rates
    from training.pipeline import Extraction


def _engine(command: Decorated) -> Decorated:
    url = click.option("--fingerprint-from", metavar="URL",
                       help="Take the engine's fingerprint from the engine at this URL, not from the column `model`, "
                       "which then holds the model's name.")  # fmt: skip
    kind = click.option("--backend", type=ENGINES, help="Kind of that engine [default: as it answers].")
    return url(kind(backend_key(command)))


_ABOUT_ENGINE = dict.fromkeys(("backend", "backend_key"), "fingerprint_from")


@click.command(cls=Command)
@click.argument("file", type=File())
@soft_budgets
@_engine
@json_output
def validate(
    file: Path, soft: bool, fingerprint_from: str | None, backend: str | None, backend_key: str, as_json: bool
) -> None:
    """Name the faults of an outcome file with row and column; exit code 2 if there are any.

    Warnings are about what no service would use, and about targets that so few prompts cannot certify.
    """
    require(_ABOUT_ENGINE)
    from training.data import dataset
    from training.data.overview import Overview, overview
    from training.evaluation import advice

    faults = dataset.validate(file, soft)
    seen = None if faults else overview(file, soft)
    counts = None if seen is None else asdict(seen)
    warnings, needed = [], None
    if isinstance(seen, Overview):
        outcomes = dataset.read(file, soft)
        engine = fingerprint_from and _fingerprint(outcomes, fingerprint_from, backend, backend_key)
        warnings = [*advice.about_engine(outcomes.model, engine), *advice.about_size(outcomes)]
        needed = advice.needs(outcomes)
    if as_json:
        click.echo(json.dumps({"faults": faults, "warnings": warnings, "overview": counts, "needed": needed}))
    for fault in [] if as_json else faults:
        click.echo(f"{file}: {fault.removeprefix(f'{file}: ')}", err=True)
    for name, value in () if as_json or counts is None else counts.items():
        click.echo(f"{name.replace('_', ' '):<16} {value}")
    if needed and not as_json:
        click.echo(needed)
    warn(warnings)
    # Not an error of the command: the faults are its result, and scripts read the exit code.
    raise SystemExit(2 if faults else 0)


@click.command(cls=Command)
@outcomes_file
@soft_budgets
@click.option("--out", type=NEW_FOLDER, required=True, help="Directory of the bundle; replaced in one step.")
@click.option("--profile", type=click.Choice(["static", "encoder"]), default="static", show_default=True,
              help="Token vectors and hand features, or a MiniLM encoder beside them (for a GPU).")  # fmt: skip
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True,
              help="Precision of the encoder: fp16 for a GPU, int8 for a CPU.")  # fmt: skip
@model_families.option
@click.option("--per-task", is_flag=True,
              help="Certify only what keeps the loss in every family of tasks, small ones pooled.")  # fmt: skip
@click.option("--answers", type=click.Choice(list(KINDS)),
              help="How answers were compared, for rules that stop within the thought [default: as the file says, else "
              "text].")  # fmt: skip
@click.option("--registry", type=NEW_FOLDER,
              help="Registry that counts how often these labels certify; then the tests share delta.")  # fmt: skip
@click.option("--compare", is_flag=True, help="Add every baseline, and each family of tasks left out (minutes).")
@rates
@_engine
@executor_options
@json_output
def fit(
    outcomes: Path,
    soft: bool,
    out: Path,
    profile: str,
    precision: str,
    families: tuple[str, ...],
    per_task: bool,
    answers: str | None,
    registry: Path | None,
    compare: bool,
    fingerprint_from: str | None,
    backend: str | None,
    backend_key: str,
    executor: str,
    ray_address: str,
    as_json: bool,
    **rates: float | None,
) -> None:
    """Fit, calibrate, certify, evaluate and export a bundle with report.json and report.html."""
    require(_ABOUT_ENGINE)
    from training import pipeline
    from training.data import dataset
    from training.evaluation import advice
    from training.report.text import describe

    if (profile, precision) not in pipeline.PROFILES:
        raise click.UsageError(f"--precision {precision} needs --profile encoder: {profile} vectors have one precision")
    units, candidates = _rates(**rates), model_families.candidates(families)
    extraction = _extraction(executor, ray_address)
    engine = None
    if fingerprint_from is not None:
        engine = _fingerprint(dataset.read(outcomes, soft), fingerprint_from, backend, backend_key)
    report = pipeline.run(
        outcomes,
        out,
        profile,
        compare,
        extraction,
        precision,
        candidates,
        engine,
        units,
        soft,
        registry,
        per_task,
        answers,
    )
    click.echo(json.dumps(report) if as_json else f"{describe(report)}\n\n{out / 'report.html'}")
    warn([*advice.about_engine(report["about"]["model"]), *advice.about_default(report)])


@click.command(cls=Command)
@click.option("--artifact", "directory", type=FOLDER, required=True, help="Directory of the bundle.")
@outcomes_file
@soft_budgets
@click.option("--whole", is_flag=True, help="Evaluate all prompts of a file that the bundle was not fitted on.")
@click.option("--html", "page", type=NewFile(), help="Also write the report as a page to this file.")
@rates
@json_output
def evaluate(
    directory: Path,
    outcomes: Path,
    soft: bool,
    whole: bool,
    page: Path | None,
    as_json: bool,
    **rates: float | None,
) -> None:
    """Evaluate a bundle on the test split of an outcome file, or on the whole file."""
    from training import bundle_report
    from training.report import html
    from training.report.text import describe

    report = bundle_report.report(directory, outcomes, _rates(**rates), whole, soft)
    if page is not None:
        html.write_page(page, report)
    click.echo(json.dumps(report) if as_json else describe(report))
    warn(report["warnings"])


def _extraction(executor: str, address: str) -> "Extraction":
    if executor == "local":
        from training.model.fit import inputs

        return inputs
    features: Extraction = ray_on(address).features
    return features


def _fingerprint(outcomes: "Outcomes", url: str, kind: str | None, key: str) -> str:
    """The fingerprint of the engine at `url` that serves the model which outcomes name. Raises BackendError."""
    from training.collect import recipes

    return recipes.fingerprint_at(url, kind or "", outcomes.model, key)


def _rates(price_in: float | None, price_out: float | None, **seconds: float | None) -> "Rates":
    """The rates that the options give. Raises UsageError where one of two that go together is missing."""
    from training.evaluation.spending import Rates

    require({"price_in": "price_out", "first_token": "per_token"})
    return Rates(price_in=price_in, price_out=price_out, **seconds)
