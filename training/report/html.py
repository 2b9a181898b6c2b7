"""The report of a fit: `report.json`, and the same figures as a self-contained page `report.html`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from router.files import write_private
from training.report.figures import Part, figures, in_points

RESULTS = ("rungs", "policies", "absolute", "methods", "fixed", "oracle", "hindsight", "tasks", "mistakes")
PARTS = (*RESULTS, "violations", "leave_one_task_out")
"""Keys of a report that may be absent; the page then shows an empty part."""


def write(directory: Path, report: Part) -> None:
    """Write `report.json` and `report.html`, which hold prompts and are their owner's alone, into an existing folder.

    Args:
        report: `Report.to_json()` with the further keys "violations", "leave_one_task_out" and "about". The last is a
            mapping of any facts, in which "not_certified" maps targets to reasons. Parts may be empty or None.

    Raises:
        OSError: the directory cannot be written.
    """
    write_private(directory / "report.json", json.dumps(report, indent=1) + "\n")
    write_private(directory / "report.html", page(report))


def page(report: Part) -> str:
    """A report as one HTML page without links to other files."""
    filled = report | {part: report.get(part) or [] for part in PARTS}
    filled["about"] = dict(report.get("about") or {})
    refused = filled["about"].pop("not_certified", None) or {}
    derived = {
        "refused": refused,
        "conclusions": conclusions(filled),
        "target": _target(filled),
        "figures": figures(filled),
    }
    return _environment().get_template("page.html.jinja").render(filled | derived) + "\n"


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    # Prompts in the report come from users, so everything is escaped; a misspelt name must fail, not vanish.
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    environment.filters |= {
        "percent": _formatted("{:.1f} %", 100),
        "points": _formatted("{:.1f}", 100),
        "decimal": _formatted("{:.3f}"),
        "count": _formatted("{:,.0f}"),
        "target": in_points,
    }
    return environment


def _formatted(template: str, factor: float = 1) -> Callable[[float | None], str]:
    return lambda value: "n/a" if value is None else template.format(factor * value)


def conclusions(report: Part) -> list[str]:
    """The main figures in plain sentences, the most important one first."""
    target = _target(report)
    if target is None:
        return ["Nothing could be certified: the router always takes the top rung, and saves nothing."]
    return [_spending(target), _loss(target, report["prompts"]), *_neighbours(target, report["methods"])]


def _target(report: Part) -> Part | None:
    """The certified policy at the loss at which methods are compared, or else the strictest one."""
    compared = {method["policy"]["alpha"] for method in report["methods"]}
    certified = [policy for policy in report["policies"] if policy["threshold"] is not None]
    return min(certified, key=lambda policy: (policy["alpha"] not in compared, policy["alpha"]), default=None)


def _spending(target: Part) -> str:
    promise = f"no more than {in_points(target['alpha'])} below always thinking longest"
    top, mix = target["saved_against_top"], target["saved_against_hull"]
    if top is None or mix is None:
        return f"At {promise}, the saving is unknown: thinking tokens are not recorded."
    spends = (
        f"spends {_fewer(top)} thinking tokens than always-longest{_between(target['top_interval'])} and "
        f"{_fewer(mix)} than the best mix of fixed budgets{_between(target['hull_interval'])}."
    )
    if target["hull_interval"][0] > 0:
        return f"At {promise}, the router {spends}"
    # An interval that includes zero must not read as a success.
    return f"The router does not beat the best mix of fixed budgets beyond chance: at {promise}, it {spends}"


def _loss(target: Part, prompts: int) -> str:
    loss, (low, high) = target["loss"], (100 * bound for bound in target["loss_interval"])
    direction = "lower" if loss >= 0 else "higher"
    beyond = ", which is more than the target" if loss > target["alpha"] else ""
    change = f"{in_points(abs(loss))} {direction}{beyond} (95 % interval of the loss {low:.1f} to {high:.1f})"
    return f"On {prompts:,} prompts it had never seen, accuracy was {change}."


def _neighbours(target: Part, methods: list[Part]) -> list[str]:
    """The result of kNN, the baseline that is hardest to beat, at the same target."""
    policies = (m["policy"] for m in methods if m["method"] == "kNN")
    saved = next((p["saved_against_hull"] for p in policies if p["alpha"] == target["alpha"]), None)
    if saved is None or target["hull_interval"] is None:
        return []
    # Within the interval the difference may be chance, so kNN must be below all of it to be called worse.
    better = saved < target["hull_interval"][0]
    word = "A plain nearest-neighbour lookup (kNN) does worse" if better else "kNN does as well"
    return [f"{word}: it spends {_fewer(saved)} than the best mix."]


def _fewer(saved: float) -> str:
    return f"{abs(round(100 * saved))} % {'fewer' if saved >= 0 else 'more'}"


def _between(interval: Sequence[float]) -> str:
    low, high = (round(100 * bound) for bound in interval)
    return f" (95 % interval {low} % to {high} %)"
