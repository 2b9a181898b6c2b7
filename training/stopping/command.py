"""Options and output of `budget-train replay`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from router.cli.strict import Command, NewFile, Number
from router.domain import DEFAULT_MAX_LOSS
from training.evaluation.metrics import hull
from training.model.embedding import static
from training.options import json_output, outcomes_file, save_plot
from training.stopping import traces
from training.stopping.replay import ReplayRow
from training.stopping.replay import replay as replayed
from training.stopping.traces import ASSUMED_PROBE_TOKENS

MARKS = {"fixed": "s", "agree": "o", "threshold": "^", "text": "x", "learned": "D"}


@click.command(cls=Command)
@outcomes_file
@click.option(
    "--max-loss", type=Number(0, 1), default=DEFAULT_MAX_LOSS, show_default=True, help="Target of the p-values."
)
@click.option("--probe-tokens", type=click.IntRange(0), default=ASSUMED_PROBE_TOKENS, show_default=True,
              help="Tokens that a probe is charged where the file does not record them.")  # fmt: skip
@click.option("--text/--no-text", default=True, show_default=True, help="Fit the text rule, too.")
@json_output
@click.option("--plot", type=NewFile(), help="Also draw accuracy against tokens into this SVG file.")
def replay(outcomes: Path, max_loss: float, probe_tokens: int, text: bool, as_json: bool, plot: Path | None) -> None:
    """Replay every way to choose a budget, also rules that stop within the thought.

    The file needs an answer at every rung: an outcome file with the column `answer` or `probe_answer`, or any table
    with prompt, budget_tokens, answer, correct and thinking_tokens. Probes are charged.
    """
    read = traces.read(outcomes, probe_tokens)
    rows = replayed(read, max_loss, static() if text else None)
    if plot:
        save_plot(draw(rows), plot)
    if as_json:
        rungs = [rung.name for rung in read.ladder.rungs]
        about = {"traces": len(read), "groups": len(set(read.groups)), "rungs": rungs, "max_loss": max_loss}
        click.echo(json.dumps(about | {"rows": [asdict(row) for row in rows]}))
    else:
        _print(rows, len(read), len(set(read.groups)), max_loss)


def _print(rows: list[ReplayRow], count: int, groups: int, max_loss: float) -> None:
    title = f"{count:,} traces in {groups:,} groups; p: that the loss is above {max_loss:g}"
    table = Table(
        "policy", "accuracy", "loss (95 %)", "thinking", "probes", "saved % (95 %)", "p", title=title, box=None
    )
    for row in rows:
        low, high = row.loss_interval
        least, most = (100 * share for share in row.saved_interval)
        table.add_row(
            row.policy,
            f"{row.accuracy:.3f}",
            f"{row.loss:+.3f} ({low:+.3f}, {high:+.3f})",
            f"{row.thinking_tokens:,.0f}",
            f"{row.probe_tokens:,.0f}",
            f"{100 * row.saved:.1f} ({least:.1f}, {most:.1f})",
            f"{row.p_value:.3f}",
        )
    # A pipe has no width, and the 80 columns that rich assumes would break the rows.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120).print(table)


def draw(rows: list[ReplayRow]) -> Figure:
    """Accuracy against tokens, probes included, with the best mixes of fixed rungs."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for family in dict.fromkeys(row.family for row in rows):
        mine = [row for row in rows if row.family == family]
        tokens = [row.thinking_tokens + row.probe_tokens for row in mine]
        axes.plot(tokens, [row.accuracy for row in mine], MARKS[family], label=family, markerfacecolor="none")
        if family == "fixed":
            axes.plot(
                *hull(np.array(tokens), np.array([row.accuracy for row in mine])), label="best mix of fixed rungs"
            )
    axes.set(xlabel="mean thinking tokens and tokens of probes", ylabel="accuracy")
    axes.legend()
    return figure
