"""The command `budget-train`."""

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.answer_keys import KINDS
from router.cli.strict import FOLDER, NEW_FOLDER, File, Group, NewFile, Number
from router.digits import counted
from router.domain import DEFAULT_MAX_LOSS
from router.extras import needs
from training.cli.cluster import Command, executor_options, ray_on
from training.cli.collect import collect
from training.cli.labels import certify, label
from training.cli.learn import learn
from training.options import (
    ENGINES,
    backend_key,
    json_output,
    outcome_log,
    outcomes_file,
    rates,
    require,
    soft_budgets,
)  # fmt: skip

# Commands import their stages when they run: Polars and scikit-learn take seconds, and help must work without them.
if TYPE_CHECKING:
    from training.data.dataset import Outcomes
    from training.evaluation.spending import Rates
    from training.model.families import ModelFamily
    from training.pipeline import Extraction
    from training.retrain import Verdict

_registry = click.option("--registry", type=NEW_FOLDER, required=True, envvar="BUDGET_ROUTER_ARTIFACT",
                         help="Directory of promoted bundles, BUDGET_ROUTER_ARTIFACT of the services.")  # fmt: skip
_families = click.option("--model-family", "--form", "families", multiple=True, metavar="NAME",
                         help="Fit only this model family, one of those in report.json; repeat for several "
                         "[default: all, compared by cross-validation].")  # fmt: skip


def _engine(command: Command) -> Command:
    url = click.option("--fingerprint-from", metavar="URL",
                       help="Take the engine's fingerprint from the engine at this URL, not from the column `model`, "
                       "which then holds the model's name.")  # fmt: skip
    kind = click.option("--backend", type=ENGINES, help="Kind of that engine [default: as it answers].")
    return url(kind(backend_key(command)))


_ABOUT_ENGINE = dict.fromkeys(("backend", "backend_key"), "fingerprint_from")


class _Recorded(click.Command):
    """A command about recorded traffic, imported when it runs: help for the others needs no Polars."""

    def __init__(self, name: str, module: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self._module = module

    @needs("train")
    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the real command, which click runs in place of this one."""
        command: click.Command = getattr(import_module(self._module), str(self.name))
        return command.make_context(info_name, args, parent, **extra)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Train the difficulty classifier on outcomes: collect -> validate -> fit -> evaluate."""


# `budget-router` has these as well.
cli.add_command(_Recorded("plan", "training.plan", "Replay recorded traffic under targets and deadlines."))
cli.add_command(_Recorded("replay", "training.stopping.command", "Replay rules that stop within the thought."))
cli.add_command(_Recorded("wrap", "training.wrapping.command", "Add conversations to outcomes of bare prompts."))
cli.add_command(collect)
cli.add_command(certify)
cli.add_command(label)
cli.add_command(learn)
cli.add_command(_Recorded("outcomes", "training.data.export_log", "Read the outcome log."))


@cli.command()
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
    _warn(warnings)
    # Not an error of the command: the faults are its result, and scripts read the exit code.
    raise SystemExit(2 if faults else 0)


@cli.command()
@outcomes_file
@soft_budgets
@click.option("--out", type=NEW_FOLDER, required=True, help="Directory of the bundle; replaced in one step.")
@click.option("--profile", type=click.Choice(["static", "encoder"]), default="static", show_default=True,
              help="Token vectors and hand features, or a MiniLM encoder beside them (for a GPU).")  # fmt: skip
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True,
              help="Precision of the encoder: fp16 for a GPU, int8 for a CPU.")  # fmt: skip
@_families
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
    units, candidates, extraction = _rates(**rates), _candidates(families), _extraction(executor, ray_address)
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
    _warn([*advice.about_engine(report["about"]["model"]), *advice.about_default(report)])


@cli.command()
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
    _warn(report["warnings"])


@cli.command()
@outcome_log
@click.option("--gold", type=File(), required=True,
              help="Parquet file with every rung of every prompt, kept for judging.")  # fmt: skip
@soft_budgets
@click.option("--max-loss", type=Number(0, 1), default=DEFAULT_MAX_LOSS, show_default=True,
              envvar="BUDGET_ROUTER_MAX_LOSS",
              help="Target that both bundles are compared at, BUDGET_ROUTER_MAX_LOSS of the services.")  # fmt: skip
@click.option(
    "--out", type=NEW_FOLDER, default=Path("var/challenger"), show_default=True, help="The challenger's bundle."
)
@_families
@click.option("--dry-run", is_flag=True, help="Judge only; promote nothing.")
@_registry
@json_output
def retrain(
    log: str,
    gold: Path,
    soft: bool,
    max_loss: float,
    out: Path,
    families: tuple[str, ...],
    dry_run: bool,
    registry: Path,
    as_json: bool,
) -> None:
    """Train a challenger on served traffic, and promote it only where it is proved to be better.

    The challenger must certify on the gold set and gain utility over the serving bundle on logged traffic: the lower
    bound of the doubly robust estimate must lie above zero. Exit code 1 means that the challenger was refused.
    """
    from router.bundle import manifest
    from router.bundle import registry as registries
    from router.scoring import trial
    from training.data.labels import require_labels

    # Both must fail now, not after an hour of training.
    registries.history(registry)
    require_labels(log)
    from training.retrain import retrain as run

    candidates = _candidates(families)
    champion = manifest.load(registries.locate(registry))
    verdict = run(log, gold, registry, champion, out, max_loss, candidates, soft)
    promoted = not verdict.refused and not dry_run
    if promoted:
        registries.promote(registry, out, trial.run)
    if as_json:
        click.echo(json.dumps(verdict.to_json() | {"promoted": promoted, "bundle": str(out)}))
    else:
        click.echo(verdict_text(verdict, promoted))
    raise SystemExit(1 if verdict.refused else 0)


@cli.command()
@click.argument("bundle", type=FOLDER)
@_registry
@json_output
def promote(bundle: Path, registry: Path, as_json: bool) -> None:
    """Make BUNDLE current: every service that follows the registry serves it within a second, without a restart."""
    from router.bundle import manifest
    from router.bundle import registry as registries
    from router.bundle.offers import offer_of
    from router.scoring import trial

    version = registries.promote(registry, bundle, trial.run)
    click.echo(json.dumps({"model_version": version}) if as_json else f"{version[:12]} is current in {registry}")
    about = manifest.load(registries.locate(registry)).manifest
    covered = any(one.alpha <= DEFAULT_MAX_LOSS for one in about.certificates)
    lack = "saves next to nothing" if covered else "is not certified"
    if (offer := offer_of(about, DEFAULT_MAX_LOSS)) is not None:
        _warn([f"the default target {lack}; to save tokens, {offer}"])


@cli.command()
@_registry
@json_output
def rollback(registry: Path, as_json: bool) -> None:
    """Make the bundle current again that was promoted before the current one."""
    from router.bundle import registry as registries

    version = registries.rollback(registry)
    click.echo(json.dumps({"model_version": version}) if as_json else f"{version[:12]} is current in {registry}")


def verdict_text(verdict: "Verdict", promoted: bool) -> str:
    """A verdict in lines of text."""
    skipped = ", ".join(f"{count} {reason}" for reason, count in verdict.skipped.items() if count)
    fitted = counted(verdict.fitted, "logged prompt")
    lines = [f"{fitted} fitted on, {verdict.judged} judged on; left out: {skipped or 'none'}"]
    if verdict.tokens is not None:
        lines.append("thinking tokens forecast: {:.1f} as served, {:.1f} by the challenger".format(*verdict.tokens))
    if verdict.gain is not None:
        for name in ("ips", "snips", "dr", "switch"):
            gain = getattr(verdict.gain, name)
            lines.append(f"utility gain, {name:<7} {gain.value:+.4f}  [{gain.low:+.4f}, {gain.high:+.4f}]")
        lines.append(
            f"effective sample {verdict.gain.effective:.0f}; {verdict.gain.resting_on_model:.0%} rest on a model"
        )
    lines += [f"refused: {why.replace('; ', f'{chr(10)}  ')}" for why in verdict.refused]
    return "\n".join([*lines, "promoted" if promoted else "not promoted"])


def _extraction(executor: str, address: str) -> "Extraction":
    if executor == "local":
        from training.model.fit import inputs

        return inputs
    features: Extraction = ray_on(address).features
    return features


def _candidates(names: tuple[str, ...]) -> dict[str, "ModelFamily"]:
    from training.model.fit import CANDIDATES, families_named

    try:
        return families_named(names)
    except KeyError as error:
        choices = ", ".join(map(repr, CANDIDATES))
        raise click.UsageError(f"no model family {error}; the families are {choices}") from error


def _fingerprint(outcomes: "Outcomes", url: str, kind: str | None, key: str) -> str:
    """The fingerprint of the engine at `url` that serves the model which outcomes name. Raises BackendError."""
    from training.collect import recipes

    return recipes.fingerprint_at(url, kind or "", outcomes.model, key)


def _warn(warnings: list[str]) -> None:
    """Print warnings at the end, where they are seen; on standard error, which no script parses."""
    for warning in warnings:
        click.secho(f"warning: {warning}", fg="red", err=True)


def _rates(price_in: float | None, price_out: float | None, **seconds: float | None) -> "Rates":
    """The rates that the options give. Raises UsageError where one of two that go together is missing."""
    from training.evaluation.spending import Rates

    require({"price_in": "price_out", "first_token": "per_token"})
    return Rates(price_in=price_in, price_out=price_out, **seconds)
