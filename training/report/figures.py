"""The figures of a report, each drawn for wide and for narrow screens."""

from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from router.digits import counted
from training.report.canvas import ACCENT, FAINT, GREEN, INK, ORANGE, STYLE, Canvas, in_points, percent_axis, points
from training.report.frontier import frontier

Part = dict[str, Any]


def figures(report: Part) -> dict[str, dict[str, Markup]]:
    """SVG elements "wide" and "narrow" by name; none for a figure that the report has no data for."""
    # Each figure has the name of the function that draws it, which the page refers to.
    draws = (frontier, reliability, rungs, coverage, violations)
    with matplotlib.rc_context(STYLE):
        return {draw.__name__: _widths(draw, report) for draw in draws}


def _widths(draw: Any, report: Part) -> dict[str, Markup]:
    widths = {}
    for width in ("wide", "narrow"):
        canvas = Canvas(f"{draw.__name__}-{width}", width == "wide")
        figure: Figure | None = draw(canvas, report)
        if figure is not None:
            widths[width] = canvas.svg(figure)
    return widths


def reliability(canvas: Canvas, report: Part) -> Figure | None:
    """Predicted against real shares of right answers, a panel per rung; None without rungs."""
    if not report["rungs"]:
        return None
    columns = min(len(report["rungs"]), 6 if canvas.wide else 3)
    rows = -(-len(report["rungs"]) // columns)  # rounded up, so the grid may have more places than there are rungs
    figure = canvas.figure(0.5 + 1.55 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel in panels[len(report["rungs"]) :]:
        panel.remove()
    for index, (panel, rung) in enumerate(zip(panels, report["rungs"], strict=False)):
        panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        panel.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        panel.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
        # The last panel of a column has the numbers, wherever the grid ends below it.
        panel.tick_params(labelbottom=index + columns >= len(report["rungs"]))
        _calibration(canvas, panel, rung)
    figure.supxlabel("predicted chance of a right answer", fontsize=9)
    figure.supylabel("answers that were right", fontsize=9)
    return figure


def _calibration(canvas: Canvas, panel: Axes, rung: Part) -> None:
    panel.plot([0, 1], [0, 1], "--", color=FAINT, linewidth=0.8)
    panel.plot(
        [p for p, _, _ in rung["reliability"]], [r for _, r, _ in rung["reliability"]], color=ACCENT, linewidth=1
    )
    for predicted, right, prompts in rung["reliability"]:
        (dot,) = panel.plot([predicted], [right], "o", color=ACCENT, markersize=2.5)
        canvas.hover(dot, f"{counted(prompts, 'prompt')}: {predicted:.0%} predicted, {right:.0%} right")
    panel.set_title(f"{rung['rung']}\nECE {rung['calibration_error']:.3f}")


def rungs(canvas: Canvas, report: Part) -> Figure | None:
    """Share of prompts at each rung, a bar per target; None without certified targets."""
    if not (report["policies"] and report["rungs"]):
        return None
    figure = canvas.figure(1.2 + 0.32 * len(report["policies"]))
    targets = [in_points(policy["alpha"]) for policy in report["policies"]]
    axes = _rows(figure, "prompts", targets)
    axes.set(ylabel="loss allowed", xlim=(0, 1))
    axes.grid(visible=False)
    shares = np.array([policy["rungs"] for policy in report["policies"]])
    # The lighter colours alone: the labels on the bars are dark on light and on dark pages.
    colors = matplotlib.colormaps["Blues"](np.linspace(0.08, 0.62, shares.shape[1]))
    for index, (rung, color) in enumerate(zip(report["rungs"], colors, strict=True)):
        left, width = shares[:, :index].sum(axis=1), shares[:, index]
        bars = axes.barh(range(len(shares)), width, left=left, color=color, edgecolor="#5b7a99", linewidth=0.4)
        bars.set_label(rung["rung"])
        for bar, share, target in zip(bars, width, targets, strict=True):
            canvas.hover(bar, f"{target}: {share:.1%} of the prompts at {rung['rung']}")
        # A smaller bar is too narrow for its number.
        texts = [f"{100 * share:.0f}" if share >= (0.04 if canvas.wide else 0.09) else "" for share in width]
        axes.bar_label(bars, texts, label_type="center", color="#111111")
    canvas.legend(figure, 6, 4)
    return figure


def _rows(figure: Figure, xlabel: str, names: list[str]) -> Axes:
    """Axes with one row per name, the first on top, and shares from left to right."""
    axes = figure.subplots()
    axes.set(xlabel=xlabel)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    percent_axis(axes, "x")
    return axes


def coverage(canvas: Canvas, report: Part) -> Figure | None:
    """Share of prompts below their token forecasts, a row per rung that thinks; None without token counts."""
    known = [rung for rung in report["rungs"] if rung["coverage"] and rung["thinking_tokens"]]
    if not known:
        return None
    figure = canvas.figure(1.2 + 0.28 * len(known))
    axes = _rows(figure, "prompts that thought no longer than forecast", [rung["rung"] for rung in known])
    least = min(min(rung["coverage"]) for rung in known)
    axes.set(xlim=(min(0.45, least - 0.05), 1.01), ylim=(len(known) - 0.5, -0.5))
    series = (("p50", 0.5, "o", GREEN), ("p90", 0.9, "s", ACCENT), ("p99", 0.99, "^", ORANGE))
    for index, (name, nominal, marker, color) in enumerate(series):
        axes.axvline(nominal, color=color, linestyle="--", linewidth=0.8)
        axes.plot([], [], marker, color=color, linestyle="none", markersize=5, label=f"{name} forecast")
        for row, rung in enumerate(known):
            (dot,) = axes.plot([rung["coverage"][index]], [row], marker, color=color, markersize=5)
            canvas.hover(dot, f"{rung['rung']}: {rung['coverage'][index]:.1%} below the {name} forecast")
    canvas.legend(figure)
    return figure


def violations(canvas: Canvas, report: Part) -> Figure | None:
    """Shares of violated certificates, and of the possible saving that they allow; None without re-splits."""
    rows = report["violations"]
    if not rows:
        return None
    # Without token counts no saving is known, and its panel would be empty.
    panels = 1 + any(row["utilisation"] is not None for row in rows)
    figure = canvas.figure(2.8 if canvas.wide else 2.4 * panels + 0.4)
    axes = figure.subplots(*((1, panels) if canvas.wide else (panels, 1)), squeeze=False).ravel()
    _violated(canvas, axes[0], rows)
    for right in axes[1:]:
        bars = right.bar(np.arange(len(rows)), [row["utilisation"] or 0 for row in rows], 0.6, color=GREEN)
        right.set_title("share of the possible saving")
        for bar, row in zip(bars, rows, strict=True):
            reached = "unknown" if row["utilisation"] is None else f"{row['utilisation']:.1%}"
            canvas.hover(bar, f"{in_points(row['alpha'])}: {reached} of the saving that is possible in hindsight")
    for panel in axes:
        panel.set(xlabel="loss allowed, in points")
        panel.set_xticks(np.arange(len(rows)), [points(row["alpha"]) for row in rows])
        percent_axis(panel, "y")
        panel.grid(visible=False, axis="x")
    canvas.legend(figure, 3, 1)
    return figure


def _violated(canvas: Canvas, axes: Axes, rows: list[Part]) -> None:
    at = np.arange(len(rows))
    bars = axes.bar(at, [row["violated"] for row in rows], 0.6, color=ACCENT, label="violated, all prompts")
    axes.plot(at, [row["violated_unseen"] for row in rows], "D", color=ORANGE, label="violated, other prompts", ms=5)
    axes.hlines([row["delta"] for row in rows], at - 0.4, at + 0.4, color=INK, linestyles="--", label="allowed")
    for bar, row in zip(bars, rows, strict=True):
        shares = f"{row['violated']:.1%} violated, {row['violated_unseen']:.1%} on other prompts"
        canvas.hover(bar, f"{in_points(row['alpha'])}: {shares}, {row['delta']:.0%} allowed")
    axes.set(title="certificates violated", ylim=(0, None))
