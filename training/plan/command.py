"""Options and output of `budget-router plan`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from router.cli.strict import FOLDER, Command, NewFile, Number
from router.routing.policy import LatencyProfile
from training.data import dataset
from training.data.outcomes import Outcomes
from training.evaluation.spending import Rates, Unit
from training.model.embedding import static
from training.options import json_output, outcomes_file, prices, require, save_plot, soft_budgets
from training.plan.drawing import draw, tables
from training.plan.replay import PlanRow, RecordedTraffic, forecast, rows, summary


@click.command(cls=Command)
@outcomes_file
@soft_budgets
@click.option("--artifact", "directory", type=FOLDER, help="Bundle to route with [default: none, hindsight alone].")
@click.option("--first-token", type=Number(0), default=0.01, show_default=True, help="Seconds to the first token.")
@click.option("--per-token", type=Number(0), default=0.001, show_default=True, help="Seconds per token.")
@click.option("--answer-tokens", type=click.IntRange(0), default=8, show_default=True, help="Tokens of an answer.")
@prices
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Requests that share a GPU.")
@click.option("--deadline", "deadlines", type=Number(0, min_open=True), multiple=True,
              help="Seconds; repeat to compare [default: quantiles of the top rung's latency].")  # fmt: skip
@click.option("--split", type=click.Choice(["test", "all"]), default="test", show_default=True,
              help="Prompts to replay.")  # fmt: skip
@json_output
@click.option("--plot", type=NewFile(), help="Also draw the plan into this SVG file.")
def plan(
    outcomes: Path, soft: bool, directory: Path | None, deadlines: tuple[float, ...], split: str, as_json: bool,
    plot: Path | None, concurrency: int, price_in: float | None, price_out: float | None, **profile: float,
) -> None:  # fmt: skip
    """Replay recorded traffic under targets and deadlines: accuracy, tokens, latency, GPU time, money."""
    require({"price_in": "price_out"})
    # A bundle was fitted on the other splits, so only the test split says what it will do on new prompts.
    recorded = dataset.read(outcomes, soft) if split == "all" else dataset.read_splits(outcomes, soft)[1][split]
    price = _price(price_in, price_out, recorded)
    traffic = RecordedTraffic(recorded, LatencyProfile(**profile), concurrency, price)
    prediction, certificates = (None, ()) if directory is None else forecast(directory, recorded)
    replayed = rows(traffic, prediction, certificates, deadlines or traffic.default_deadlines())
    if plot:
        save_plot(draw(recorded, replayed), plot)
    if as_json:
        _print_json(recorded, replayed)
    else:
        _print_tables(recorded, replayed)


def _price(price_in: float | None, price_out: float | None, outcomes: Outcomes) -> Unit | None:
    """What tokens cost, and a prompt of mean length; None without prices."""
    if price_out is None:
        return None
    tokenizer = static().tokenizer if price_in else b""
    return Rates(price_in=price_in, price_out=price_out).units(tokenizer, outcomes)[-1]


def _print_json(outcomes: Outcomes, replayed: list[PlanRow]) -> None:
    names = [rung.name for rung in outcomes.ladder.rungs]
    click.echo(json.dumps({"prompts": len(outcomes), "rungs": names, "rows": [asdict(row) for row in replayed]}))


def _print_tables(outcomes: Outcomes, replayed: list[PlanRow]) -> None:
    names = "/".join(rung.name for rung in outcomes.ladder.rungs)
    # A pipe has no width, and the 80 columns that rich assumes would break the rows.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 132)
    for part in (*tables(names, replayed), summary(replayed)):
        console.print(part, end="\n\n")
