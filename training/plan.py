"""The command `budget-router plan`: what targets and deadlines would have meant for recorded traffic.

Choices are made as serving makes them, from a bundle's forecasts; what they cost is what was recorded at the chosen
rung. Without a bundle there are no forecasts: what is left is the best fixed rung, and hindsight, the cheapest of the
rungs that turned out best for each prompt; no router is more accurate.
"""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from router.bundle import manifest
from router.bundle.manifest import QUANTILES
from router.domain import Certificate
from router.routing.policy import LatencyProfile
from training.data import dataset
from training.data.dataset import Outcomes
from training.data.schema import DatasetError
from training.evaluation.certify import choose, losses
from training.evaluation.metrics import hull, hull_accuracy
from training.model.fit import caps
from training.prediction import Prediction

SPREAD = (0.25, 0.5, 0.75, 0.9, 0.99)
"""Quantiles of the top rung's latency that are the deadlines where none is asked for."""

Matrix = NDArray[np.float64]
Chosen = NDArray[np.intp]
InTime = NDArray[np.bool_]


@dataclass(frozen=True)
class PlanRow:
    """A policy on recorded traffic.

    Attributes:
        max_loss: the certified target; None where the policy has none.
        deadline: seconds; None for no deadline.
        accuracy: mean correctness, 0..1; `loss` is that of always-top less it.
        mix_accuracy: of the best random mix of fixed rungs that thinks as many tokens.
        thinking_tokens: mean per request.
        p50, p99: latency in seconds.
        gpu_seconds: per 1,000 requests.
        in_time: share of requests that end within the deadline.
        rungs: share of prompts at each rung.
    """

    policy: str
    max_loss: float | None
    deadline: float | None
    accuracy: float
    loss: float
    mix_accuracy: float
    thinking_tokens: float
    p50: float
    p99: float
    gpu_seconds: float
    in_time: float | None
    rungs: list[float]

    @property
    def label(self) -> str:
        """The policy and its target."""
        return self.policy if self.max_loss is None else f"{self.policy}, loss {self.max_loss:g}"


@dataclass(frozen=True)
class RecordedTraffic:
    """Recorded outcomes, and what serving them takes where `concurrency` requests share a GPU."""

    outcomes: Outcomes
    latency: LatencyProfile
    concurrency: int = 1

    def __post_init__(self) -> None:
        for rung, known in zip(self.outcomes.ladder.rungs, self.outcomes.known_tokens, strict=True):
            if not known:
                raise DatasetError(f"rung {rung.name}: thinking_tokens are not recorded for every prompt")

    def row(self, policy: str, chosen: Chosen, deadline: float | None, max_loss: float | None = None) -> PlanRow:
        """What choosing these rungs [prompts] means."""
        each, width = np.arange(len(chosen)), len(self.outcomes.ladder)
        correct, thought = self.outcomes.correct, self.outcomes.thinking_tokens
        took = seconds(self.latency, thought[each, chosen])
        tokens = float(thought[each, chosen].mean())
        return PlanRow(
            policy,
            max_loss,
            deadline,
            float(correct[each, chosen].mean()),
            float(losses(correct, chosen).mean()),
            hull_accuracy(thought.mean(axis=0), correct.mean(axis=0), tokens),
            tokens,
            float(np.quantile(took, 0.5)),
            float(np.quantile(took, 0.99)),
            float(took.mean()) / self.concurrency * 1_000,
            None if deadline is None else float((took <= deadline).mean()),
            (np.bincount(chosen, minlength=width) / len(chosen)).tolist(),
        )

    def default_deadlines(self) -> list[float]:
        """Deadlines in seconds worth a look, to three digits."""
        found = np.quantile(seconds(self.latency, self.outcomes.thinking_tokens[:, -1]), SPREAD)
        return sorted({float(f"{value:.3g}") for value in found})


def rows(
    traffic: RecordedTraffic,
    prediction: Prediction | None,
    certificates: Sequence[Certificate],
    deadlines: Sequence[float],
) -> list[PlanRow]:
    """Every fixed rung; then the router at every target, without a deadline and with each (seconds), rising.

    Without a prediction (for the same prompts) the best fixed rung and hindsight take the router's place.
    """
    found = list(_fixed(traffic))
    for deadline in (None, *sorted(deadlines)):
        if prediction is None:
            found += _hindsight(traffic, deadline)
        else:
            found += _router(traffic, prediction, certificates, deadline)
    return found


def seconds(latency: LatencyProfile, thinking_tokens: Matrix) -> Matrix:
    """`LatencyProfile.seconds` of an array."""
    return latency.first_token + latency.per_token * (thinking_tokens + latency.answer_tokens)


def served_rungs(prediction: Prediction, price: float, in_time: InTime) -> Chosen:
    """What `router.policy.Policy` chooses at a price where only some rungs [prompts, rungs] keep the deadline.

    The rung worth most; where it is late, the next dearer one in time, else the longest in time; where all are late,
    the cheapest.
    """
    wanted, last = choose(prediction.quality, prediction.cost, price), in_time.shape[1] - 1
    enough = in_time & (np.arange(last + 1) >= wanted[:, None])
    longest = last - in_time[:, ::-1].argmax(axis=1)
    served = np.where(enough.any(axis=1), enough.argmax(axis=1), longest)
    return np.where(in_time.any(axis=1), served, 0)


def forecast(directory: Path, outcomes: Outcomes) -> tuple[Prediction, tuple[Certificate, ...]]:
    """What a bundle forecasts for the prompts of outcomes, and its relative certificates."""
    from training.model import inference

    bundle = manifest.load(directory)
    if bundle.manifest.ladder != outcomes.ladder:
        raise DatasetError("the outcomes are of another ladder than the bundle")
    return inference.predict(bundle, outcomes.prompts), bundle.manifest.certificates


def _fixed(traffic: RecordedTraffic) -> Iterator[PlanRow]:
    *lower, top = (rung.name for rung in traffic.outcomes.ladder.rungs)
    for i, name in enumerate([*lower, f"{top} (top)"]):
        yield traffic.row(f"always {name}", np.full(len(traffic.outcomes), i), None)


def _router(
    traffic: RecordedTraffic, prediction: Prediction, certificates: Sequence[Certificate], deadline: float | None
) -> Iterator[PlanRow]:
    p99 = prediction.token_quantiles[:, :, QUANTILES.index(0.99)]
    most = np.where(np.isnan(p99), caps(traffic.outcomes.ladder), p99)
    in_time = _in_time(traffic.latency, most, deadline)
    for c in certificates:
        yield traffic.row("router", served_rungs(prediction, c.threshold, in_time), deadline, c.alpha)


def _hindsight(traffic: RecordedTraffic, deadline: float | None) -> Iterator[PlanRow]:
    correct, tokens = traffic.outcomes.correct, traffic.outcomes.thinking_tokens
    p99 = np.quantile(tokens, 0.99, axis=0, keepdims=True)
    fixed = _best(correct.mean(axis=0, keepdims=True), _in_time(traffic.latency, p99, deadline))
    yield traffic.row("best fixed rung", np.repeat(fixed, len(correct)), deadline)
    yield traffic.row("hindsight", _best(correct, _in_time(traffic.latency, tokens, deadline)), deadline)


def _in_time(latency: LatencyProfile, tokens: Matrix, deadline: float | None) -> InTime:
    if deadline is None:
        return np.ones(tokens.shape, bool)
    return np.asarray(seconds(latency, tokens) <= deadline)


def _best(correct: Matrix, in_time: InTime) -> Chosen:
    """The cheapest of the best rungs in time; where all are late, the cheapest."""
    return np.asarray(np.where(in_time, correct, -1).argmax(axis=1))


def summary(found: Sequence[PlanRow]) -> str:
    """The boldest policy beside always-top, and under the tightest deadline."""
    top = next(r for r in found if r.rungs[-1] == 1)
    best = [r for r in found if r.deadline is None][-1]
    said = (
        f"{best.label}: {best.thinking_tokens:.1f} thinking tokens a request, always-top {top.thinking_tokens:.1f}; "
        f"p99 {best.p99:.3g} s, always-top {top.p99:.3g} s; "
        f"accuracy {best.accuracy:.3f}, always-top {top.accuracy:.3f}."
    )
    tight = next((r for r in found if r.deadline is not None and r.label == best.label), None)
    if tight is None or tight.in_time is None:
        return said
    return f"{said} Within {tight.deadline:g} s: accuracy {tight.accuracy:.3f}, {tight.in_time:.1%} in time."


def tables(names: str, found: Sequence[PlanRow]) -> tuple[Table, Table]:
    """Policies without a deadline, and with; `names` are those of the rungs."""
    free = Table("policy", "accuracy", "loss", "mix", "tokens", "p50 s", "p99 s", "GPU s/1k", f"% at {names}", box=None)
    held = Table("deadline s", "policy", "accuracy", "loss", "tokens", "p99 s", "% in time", box=None)
    for r in found:
        quality, tokens, p99 = (f"{r.accuracy:.3f}", f"{r.loss:.3f}"), f"{r.thinking_tokens:.1f}", f"{r.p99:.3g}"
        if r.in_time is None:
            shares = "/".join(f"{100 * share:.0f}" for share in r.rungs)
            time = f"{r.p50:.3g}", p99, f"{r.gpu_seconds:.0f}"
            free.add_row(r.label, *quality, f"{r.mix_accuracy:.3f}", tokens, *time, shares)
        else:
            held.add_row(f"{r.deadline:g}", r.label, *quality, tokens, p99, f"{100 * r.in_time:.1f}")
    return free, held


def draw(outcomes: Outcomes, found: Sequence[PlanRow]) -> Figure:
    """Accuracy against tokens, latency by policy, accuracy against deadline."""
    figure = Figure(figsize=(16, 5), layout="constrained")
    quality, latency, held = figure.subplots(1, 3)
    free = [r for r in found if r.deadline is None]
    corners = hull(outcomes.thinking_tokens.mean(axis=0), outcomes.correct.mean(axis=0))
    quality.plot(*corners, label="best mix of fixed rungs")
    for r in free:
        quality.plot(r.thinking_tokens, r.accuracy, "s" if r.policy.startswith("always") else "o", color="black")
        quality.annotate(r.label, (r.thinking_tokens, r.accuracy), fontsize="small", rotation=30)
    for name in ("p50", "p99"):
        latency.plot([r.label for r in free], [getattr(r, name) for r in free], "o", label=name)
    for label in dict.fromkeys(r.label for r in found if r.deadline is not None):
        line = [(r.deadline, r.accuracy) for r in found if r.label == label and r.deadline is not None]
        held.plot(*zip(*line, strict=True), "o-", label=label)
    latency.tick_params(axis="x", rotation=75)
    quality.set(xlabel="mean thinking tokens", ylabel="accuracy")
    latency.set(ylabel="latency in seconds")
    held.set(xlabel="deadline in seconds", ylabel="accuracy")
    for axes in (quality, latency, held):
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


class _BadInput(click.ClickException):
    exit_code = 2


class _Seconds(click.FloatRange):
    """A finite number; the range alone lets NaN pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        given = float(super().convert(value, param, ctx))
        return given if math.isfinite(given) else self.fail(f"{value} is not finite", param, ctx)


@click.command()
@click.option("--outcomes", "file", type=Path, required=True, help="Parquet file of the outcome schema.")
@click.option("--artifact", "directory", type=Path, help="Bundle to route with [default: none, hindsight alone].")
@click.option("--first-token", type=_Seconds(0), default=0.01, show_default=True, help="Seconds to the first token.")
@click.option("--per-token", type=_Seconds(0), default=0.001, show_default=True, help="Seconds per token.")
@click.option("--answer-tokens", type=click.IntRange(0), default=8, show_default=True, help="Of a usual answer.")
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Requests that share a GPU.")
@click.option("--deadline", "deadlines", type=_Seconds(0, min_open=True), multiple=True,
              help="Seconds; repeat to compare [default: quantiles of the top rung's latency].")  # fmt: skip
@click.option("--split", type=click.Choice(["test", "all"]), default="test", show_default=True, help="Prompts.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Also draw it, as SVG.")
def plan(
    file: Path, directory: Path | None, deadlines: tuple[float, ...], split: str, as_json: bool, plot: Path | None,
    concurrency: int, **profile: float,
) -> None:  # fmt: skip
    """What targets and deadlines would have meant for recorded traffic: accuracy, tokens, latency, GPU time."""
    try:
        outcomes = dataset.read(file)
        outcomes = outcomes if split == "all" else dataset.splits(outcomes)[split]
        traffic = RecordedTraffic(outcomes, LatencyProfile(**profile), concurrency)
        prediction, certificates = (None, ()) if directory is None else forecast(directory, outcomes)
        found = rows(traffic, prediction, certificates, deadlines or traffic.default_deadlines())
        if plot:
            draw(outcomes, found).savefig(plot, format="svg", metadata={"Date": None})
    except (DatasetError, OSError) as error:
        raise _BadInput(str(error)) from error
    names = [rung.name for rung in outcomes.ladder.rungs]
    if as_json:
        click.echo(json.dumps({"prompts": len(outcomes), "rungs": names, "rows": [asdict(r) for r in found]}))
        return
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 132)
    for part in (*tables("/".join(names), found), summary(found)):
        console.print(part, end="\n\n")
