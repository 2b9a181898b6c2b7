"""A plan as tables for the terminal and as a figure."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from rich.table import Table

from training.data.outcomes import Outcomes
from training.evaluation.metrics import hull
from training.plan.replay import PlanRow


def tables(names: str, plan: Sequence[PlanRow]) -> tuple[Table, Table]:
    """Policies without a deadline, and policies with one; `names` are the names of the rungs for the column's head."""
    priced = ["money/1k"] if any(row.money is not None for row in plan) else []
    heads = "policy", "accuracy", "loss", "mix", "tokens", "p50 s", "p99 s", "GPU s/1k", *priced, f"% at {names}"
    free = Table(*heads, box=None)
    held = Table("deadline s", "policy", "accuracy", "loss", "tokens", "p99 s", "% in time", box=None)
    for row in plan:
        quality = f"{row.accuracy:.3f}", f"{row.loss:.3f}"
        tokens, p99 = f"{row.thinking_tokens:.1f}", f"{row.p99:.3g}"
        if row.in_time is None:
            shares = "/".join(f"{100 * share:.0f}" for share in row.rungs)
            time = f"{row.p50:.3g}", p99, f"{row.gpu_seconds:.0f}"
            money = [] if row.money is None else [f"{row.money:.3g}"]
            free.add_row(row.label, *quality, f"{row.mix_accuracy:.3f}", tokens, *time, *money, shares)
        else:
            held.add_row(f"{row.deadline:g}", row.label, *quality, tokens, p99, f"{100 * row.in_time:.1f}")
    return free, held


def draw(outcomes: Outcomes, plan: Sequence[PlanRow]) -> Figure:
    """Three panels: accuracy against tokens, latency by policy, accuracy against deadline."""
    figure = Figure(figsize=(16, 5), layout="constrained")
    quality, latency, held = figure.subplots(1, 3)
    free = [row for row in plan if row.deadline is None]
    corners = hull(outcomes.thinking_tokens.mean(axis=0), outcomes.correct.mean(axis=0))
    quality.plot(*corners, label="best mix of fixed rungs")
    for row in free:
        marker = "s" if row.policy.startswith("always") else "o"
        quality.plot(row.thinking_tokens, row.accuracy, marker, color="black")
        quality.annotate(row.label, (row.thinking_tokens, row.accuracy), fontsize="small", rotation=30)
    for name in ("p50", "p99"):
        latency.plot([row.label for row in free], [getattr(row, name) for row in free], "o", label=name)
    # dict.fromkeys keeps the order of the plan, which a set would lose.
    for label in dict.fromkeys(row.label for row in plan if row.deadline is not None):
        line = [(row.deadline, row.accuracy) for row in plan if row.label == label and row.deadline is not None]
        held.plot(*zip(*line, strict=True), "o-", label=label)
    latency.tick_params(axis="x", rotation=75)
    quality.set(xlabel="mean thinking tokens", ylabel="accuracy")
    latency.set(ylabel="latency in seconds")
    held.set(xlabel="deadline in seconds", ylabel="accuracy")
    for axes in (quality, latency, held):
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure
