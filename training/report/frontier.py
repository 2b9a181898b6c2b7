"""The figure of cost and quality."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluation.metrics import hull
from training.report.canvas import ACCENT, FAINT, GREEN, INK, Canvas, in_points, percent_axis, points

Part = dict[str, Any]
Point = Sequence[float]
"""Mean thinking tokens and the share of right answers."""

Label = tuple[Point, str]

ROUTER = "router"
"""The router's name among the methods."""

NAMED = 3
"""Other methods in the legend by name."""

NEAR = 0.3
"""Inches within which labels would overlap."""


def frontier(canvas: Canvas, report: Part) -> Figure | None:
    """Accuracy against thinking tokens, or None without token counts."""
    if not report["fixed"]:
        return None
    figure = canvas.figure(4.6 if canvas.wide else 4.2)
    axes = figure.subplots()
    axes.set(xlabel="thinking tokens per prompt, mean", ylabel="answers that are right")
    percent_axis(axes, "y")
    _others(canvas, axes, report["methods"])
    _oracles(axes, report)
    _fixed(canvas, axes, report)
    _router(canvas, axes, report)
    axes.margins(x=0.04, y=0.1)
    _labels(axes, report)
    canvas.legend(figure, 3, 1)
    return figure


def _others(canvas: Canvas, axes: Axes, methods: list[Part]) -> None:
    """The best other methods by name, all others as one."""
    others = [m for m in methods if m["method"] != ROUTER and m["curve"]]
    known = sorted((m for m in others if m["area_gain"] is not None), key=lambda m: -m["area_gain"])
    styles = {m["method"]: style for m, style in zip(known[:NAMED], ("--", "-.", ":"), strict=False)}
    rest = "other methods"
    for method in others:
        name, alone = method["method"], len(method["curve"]) == 1
        style = "." if alone else styles.get(name, "-")
        label = name if name in styles else rest
        width = 1.1 if name in styles else 0.5
        (line,) = axes.plot(*_columns(method["curve"]), style, color=FAINT, linewidth=width, label=label)
        canvas.hover(line, name)
        rest = "_nolegend_" if label == rest else rest


def _oracles(axes: Axes, report: Part) -> None:
    # With one sample a prompt both are the same.
    if report["hindsight"] != report["oracle"]:
        axes.plot(*_columns(report["hindsight"]), ":", color=GREEN, linewidth=1.2, label="hindsight oracle")
    label = "probability oracle" if report["hindsight"] != report["oracle"] else "hindsight oracle"
    axes.plot(*_columns(report["oracle"]), "--", color=GREEN, linewidth=1.2, label=label)


def _fixed(canvas: Canvas, axes: Axes, report: Part) -> None:
    tokens, accuracy = _columns(report["fixed"])
    axes.plot(
        *hull(np.array(tokens), np.array(accuracy)), "-.", color=INK, linewidth=0.9, label="best mix of fixed rungs"
    )
    axes.plot([], [], "o", color=INK, markersize=5, label="fixed rungs")
    for rung, point in zip(report["rungs"], report["fixed"], strict=False):
        (dot,) = axes.plot([point[0]], [point[1]], "o", color=INK, markersize=5)
        canvas.hover(dot, f"always {rung['rung']}: {point[0]:,.0f} thinking tokens, {point[1]:.1%} right")


def _router(canvas: Canvas, axes: Axes, report: Part) -> None:
    """The router's line, and a mark for every row of the frontier's table, in its order."""
    if not report["frontier"]:
        return
    curve = [(point["thinking_tokens"], point["accuracy"]) for point in report["frontier"]]
    learned = [place for place, point in zip(curve, report["frontier"], strict=True) if not point["rung"]]
    axes.plot(*_columns(learned), color=ACCENT, linewidth=1.8, zorder=3, label="the router")
    axes.plot([], [], "D", color=ACCENT, markersize=6, label="certified targets, in points")
    for row, (tokens, accuracy) in enumerate(curve):
        point = report["frontier"][row]
        proof = point["certified"]
        (mark,) = axes.plot([tokens], [accuracy], "o" if proof is None else "D", color=ACCENT, zorder=4)
        mark.set_markersize(3 if proof is None else 6)
        served = "" if proof is None else f"; certified: at most {in_points(proof)}"
        served += f", rung {point['rung']} for everybody" if point["rung"] else ""
        saved = f"{point['saved_against_top']:.1%} of the tokens saved"
        canvas.hover(mark, f"{in_points(point['loss'])} of loss, {saved}{served}", f"point-{row}")


def _labels(axes: Axes, report: Part) -> None:
    """Name the fixed rungs below their points, and the certified targets above theirs."""
    rungs: list[Label] = [(p, rung["rung"]) for rung, p in zip(report["rungs"], report["fixed"], strict=False)]
    proved = [policy for policy in report["policies"] if policy["thinking_tokens"] is not None]
    targets: list[Label] = [((p["thinking_tokens"], p["accuracy"]), points(p["alpha"])) for p in proved]
    for color, labels, offset in ((INK, rungs, (6, -11)), (ACCENT, targets, (-6, 6))):
        side = "left" if offset[0] > 0 else "right"
        for point, text in _merged(axes, labels):
            axes.annotate(text, (point[0], point[1]), offset, textcoords="offset points", ha=side, color=color)


def _merged(axes: Axes, labels: list[Label]) -> Iterator[Label]:
    """Labels of points that lie close together, as one label at the last of them."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    size = figure.get_size_inches() * 0.8  # axes take about four fifths of a figure
    places = [_place(axes, point) * size for point, _ in labels]
    texts: list[str] = []
    for index, (point, text) in enumerate(labels):
        texts.append(text)
        following = places[index + 1 : index + 2]
        if not following or np.hypot(*(following[0] - places[index])) > NEAR:
            yield point, ", ".join(texts)
            texts = []


def _place(axes: Axes, point: Point) -> Any:
    """Where a point lies in the axes, from (0, 0) to (1, 1)."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    return np.array([(point[0] - left) / (right - left), (point[1] - low) / (high - low)])


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]
