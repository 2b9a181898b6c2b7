"""The figures of a report as SVG inside its page.

Figures are drawn in placeholder colours, which then become CSS variables, so that they follow the page into dark mode.
Equal reports give equal bytes.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.evaluation.metrics import hull

Part = dict[str, Any]

ROUTER = "router"
"""The router's name among the methods."""

INK, FAINT, ROUTER_INK = "#010203", "#040506", "#070809"
CSS_COLORS = {INK: "currentColor", FAINT: "var(--faint)", ROUTER_INK: "var(--router)"}
ORANGE, GREEN = "#d55e00", "#009e73"
"""Colours of the Okabe-Ito palette, which colour-blind readers can distinguish; legible on light and dark pages."""

STYLE: dict[Any, Any] = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
    # Without parse_math, "$" in the name of a rung or task is no formula.
    **dict.fromkeys(("axes.spines.right", "axes.spines.top", "legend.frameon", "text.parse_math"), False),
    **{"axes.axisbelow": True, "axes.grid": True, "grid.alpha": 0.3, "grid.color": FAINT},
    # Text stays text, in the font of the page; ids are salted hashes, by default with a new salt each time.
    **{"svg.fonttype": "none", "svg.hashsalt": "report"},
}


def figures(report: Part) -> dict[str, Markup]:
    """SVG elements by name, for the figures that the report has data for."""
    # Each figure has the name of the function that draws it, which the page refers to.
    draws = (frontier, reliability, rungs, coverage, violations)
    with matplotlib.rc_context(STYLE):
        drawn = {draw.__name__: draw(report) for draw in draws}
        return {name: _svg(name, figure) for name, figure in drawn.items() if figure}


def _svg(name: str, figure: Figure) -> Markup:
    """An SVG element; its ids get a prefix, because all figures share the page's one name space."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # What stands before the element, an XML declaration and a DOCTYPE, is not allowed inside a page.
    _, start, rest = buffer.getvalue().partition("<svg")
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", start + rest)
    for color, css in CSS_COLORS.items():
        svg = svg.replace(color, css)
    return Markup(svg)  # safe: matplotlib escapes every label


def frontier(report: Part) -> Figure | None:
    """Accuracy against thinking tokens, or None without token counts."""
    if not report["fixed"]:
        return None
    figure = Figure((8, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="thinking tokens per prompt, mean", ylabel="answers that are right")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _methods(axes, report["methods"])
    for name, style, label in (("hindsight", ":", "hindsight oracle"), ("oracle", "--", "probability oracle")):
        axes.plot(*_columns(report[name]), style, color=GREEN, label=label)
    _fixed(axes, report)
    proved = [p for p in report["policies"] if p["threshold"] is not None]
    points = [(p["thinking_tokens"], p["accuracy"]) for p in proved]
    axes.plot(*_columns(points), "D", color=ORANGE, zorder=4, label="certified targets (loss in points)")
    for policy, point in zip(proved, points, strict=True):
        _label(axes, _number(policy["alpha"]), point, (-5, 6), ORANGE)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _methods(axes: Axes, methods: list[Part]) -> None:
    """Draw curves: the router's in bold, and the three best others with their names."""
    others = [m for m in methods if m["method"] != ROUTER and m["curve"]]
    for method in others:
        axes.plot(
            *_columns(method["curve"]), color=FAINT, linewidth=0.8, marker="." if len(method["curve"]) == 1 else ""
        )
    for method in (m for m in methods if m["method"] == ROUTER):
        axes.plot(*_columns(method["curve"]), color=ROUTER_INK, linewidth=2.5, zorder=3, label="the router")
    # More names than three would cover the curves; the table below the figure has all methods.
    known = [m for m in others if m["area_gain"] is not None]
    for place, method in enumerate(sorted(known, key=lambda m: -m["area_gain"])[:3]):
        most = max(tokens for tokens, _ in method["curve"])
        point = min(method["curve"], key=lambda point: abs(point[0] - most * (place + 1) / 4))
        line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6}
        where = (0.97, 0.06 + 0.07 * place)
        axes.annotate(method["method"], point, where, textcoords="axes fraction", ha="right", arrowprops=line)


def _fixed(axes: Axes, report: Part) -> None:
    tokens, accuracy = _columns(report["fixed"])
    axes.plot(
        *hull(np.array(tokens), np.array(accuracy)), "-.", color=INK, linewidth=1, label="best mix of fixed rungs"
    )
    axes.plot(tokens, accuracy, "o", color=INK, label="fixed rungs")
    for rung, point in zip(report["rungs"], report["fixed"], strict=False):
        _label(axes, rung["rung"], point, (7, -11), INK)


def _label(axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], color: str) -> None:
    axes.annotate(text, point, offset, textcoords="offset points", ha="left" if offset[0] > 0 else "right", color=color)


def _columns(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def reliability(report: Part) -> Figure | None:
    """Predicted against real shares of right answers, a panel per rung; None without rungs."""
    if not report["rungs"]:
        return None
    columns = min(len(report["rungs"]), 5)
    rows = -(-len(report["rungs"]) // columns)  # rounded up, so the grid may have more panels than there are rungs
    figure = Figure((8, 0.6 + 2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel in panels:
        panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
    for panel, rung in zip(panels, report["rungs"], strict=False):
        panel.plot([0, 1], [0, 1], "--", color=FAINT, linewidth=1)
        panel.plot(*_columns(rung["reliability"]), "o-", color=ROUTER_INK, markersize=3, linewidth=1)
        panel.set_title(f"{rung['rung']}\nECE {rung['calibration_error']:.3f}", fontsize=9)
    figure.supxlabel("predicted chance of a right answer", fontsize=10)
    figure.supylabel("answers that were right", fontsize=10)
    return figure


def rungs(report: Part) -> Figure | None:
    """Share of prompts at each rung, a bar per target; None without certified targets."""
    if not (report["policies"] and report["rungs"]):
        return None
    figure = Figure((8, 1.4 + 0.4 * len(report["policies"])), layout="constrained")
    axes = _rows(figure, "prompts", [in_points(policy["alpha"]) for policy in report["policies"]])
    axes.set_ylabel("loss allowed")
    shares = np.array([policy["rungs"] for policy in report["policies"]])
    # The lighter half of the colours alone: the labels on the bars are dark.
    colors = matplotlib.colormaps["viridis"](np.linspace(0.45, 1, shares.shape[1]))
    for index, (rung, color) in enumerate(zip(report["rungs"], colors, strict=True)):
        left, width = shares[:, :index].sum(axis=1), shares[:, index]
        bars = axes.barh(range(len(shares)), width, left=left, color=color, edgecolor=INK, linewidth=0.5)
        bars.set_label(rung["rung"])
        texts = [f"{100 * share:.0f}" if share >= 0.05 else "" for share in width]  # a smaller bar is too narrow
        axes.bar_label(bars, texts, label_type="center", color="#111111", fontsize=9)
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def _rows(figure: Figure, xlabel: str, names: list[str]) -> Axes:
    """Axes with one row per name, the first on top, and shares from left to right."""
    axes = figure.subplots()
    axes.set(xlabel=xlabel, xlim=(0, 1.005))
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    return axes


def coverage(report: Part) -> Figure | None:
    """Share of prompts below their token forecasts, a row per rung; None without token counts."""
    known = [rung for rung in report["rungs"] if rung["coverage"]]
    if not known:
        return None
    figure = Figure((8, 1.4 + 0.35 * len(known)), layout="constrained")
    axes = _rows(figure, "prompts that thought no longer than forecast", [rung["rung"] for rung in known])
    series = (("p50", 0.5, "o", GREEN), ("p90", 0.9, "s", ROUTER_INK), ("p99", 0.99, "^", ORANGE))
    for index, (name, nominal, marker, color) in enumerate(series):
        axes.axvline(nominal, color=color, linestyle="--", linewidth=1)
        axes.plot([r["coverage"][index] for r in known], range(len(known)), marker, color=color, label=name)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def violations(report: Part) -> Figure | None:
    """Shares of violated certificates, and of the possible saving that they allow; None without re-splits."""
    rows = report["violations"]
    if not rows:
        return None
    figure = Figure((8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = np.arange(len(rows))
    left.bar(at, [v["violated"] for v in rows], color=ROUTER_INK, label="broken, all prompts")
    left.plot(at, [v["violated_unseen"] for v in rows], "D", color=ORANGE, label="broken, other prompts")
    left.hlines([v["delta"] for v in rows], at - 0.45, at + 0.45, color=INK, linestyles="--", label="allowed")
    right.bar(at, [v["utilisation"] or 0 for v in rows], color=GREEN)
    for axes, title in ((left, "certificates violated"), (right, "share of the possible saving")):
        axes.set(title=title, xlabel="loss allowed, in points")
        axes.set_xticks(at, [_number(v["alpha"]) for v in rows])
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def in_points(share: float) -> str:
    """A share in percentage points: 0.02 -> "2 points"."""
    number = _number(share)
    return f"{number} point" if number == "1" else f"{number} points"


def _number(share: float) -> str:
    return f"{round(100 * share, 1):g}"
