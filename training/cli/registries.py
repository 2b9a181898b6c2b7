"""`budget-train retrain`, `promote` and `rollback`: which bundle of a registry is current."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.strict import FOLDER, NEW_FOLDER, Command, File, Number
from router.digits import counted
from router.domain import DEFAULT_MAX_LOSS
from training.cli import model_families
from training.options import json_output, outcome_log, soft_budgets, warn

# Stages are imported when they run: Polars and scikit-learn take seconds, and help must work without them.
if TYPE_CHECKING:
    from training.retrain import Verdict

_registry = click.option("--registry", type=NEW_FOLDER, required=True, envvar="BUDGET_ROUTER_ARTIFACT",
                         help="Directory of promoted bundles, BUDGET_ROUTER_ARTIFACT of the services.")  # fmt: skip


@click.command(cls=Command)
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
@model_families.option
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

    candidates = model_families.candidates(families)
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


@click.command(cls=Command)
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
        warn([f"the default target {lack}; to save tokens, {offer}"])


@click.command(cls=Command)
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
