"""The report of a fit: `report.json`, and the same figures as a self-contained page `report.html`."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from router.files import write_private
from training.report import opening
from training.report.canvas import in_points
from training.report.figures import Part, figures

RESULTS = ("rungs", "policies", "absolute", "methods", "fixed", "oracle", "hindsight", "tasks", "kinds", "mistakes")
PARTS = (*RESULTS, "per_prompt", "stopping", "savings", "frontier", "violations", "leave_one_task_out", "warnings")
"""Keys of a report that may be absent; the page then leaves their part out."""

FACTS = ("model", "fitted", "ladder", "splits")
"""What the head of the page says about a fit; the other facts stand at its end."""


MINUS = "\u2212"


def write(directory: Path, report: Part) -> None:
    """Write `report.json` and `report.html`, which hold prompts and are their owner's alone, into an existing folder.

    Args:
        report: `Report.to_json()` with the further keys "violations", "leave_one_task_out" and "about". The last is a
            mapping of any facts, in which "not_certified" maps targets to reasons. Parts may be empty or None.

    Raises:
        OSError: the directory cannot be written.
    """
    write_private(directory / "report.json", json.dumps(report, indent=1) + "\n")
    write_page(directory / "report.html", report)


def write_page(path: Path, report: Part) -> None:
    """Write the page alone. Raises OSError."""
    write_private(path, page(report))


def page(report: Part) -> str:
    """A report as one HTML page without links to other files."""
    filled = report | {part: report.get(part) or [] for part in PARTS}
    filled["about"] = dict(report.get("about") or {})
    if filled["reported"] is None:
        filled["savings"] = []  # they are those of the reported target
    refused = filled["about"].pop("not_certified", None) or {}
    derived = {
        "refused": refused,
        "headline": opening.headline(filled, refused),
        "promise": opening.promise(filled),
        "measured": opening.measured(filled),
        "target": opening.target(filled),
        "start": _start(filled["frontier"], filled["reported"]),
        "facts": {name: filled["about"].pop(name, None) for name in FACTS},
        "figures": figures(filled),
    }
    return _environment().get_template("page.html.jinja").render(filled | derived) + "\n"


def _start(frontier: list[Part], reported: float | None) -> int:
    """The point of the frontier at which the slider starts: the reported target's, else the top rung's."""
    certified = [point["certified"] for point in frontier]
    return certified.index(reported) if reported is not None and reported in certified else 0


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    # Prompts in the report come from users, so everything is escaped; a misspelt name must fail, not vanish.
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "percent": _formatted("{:z.1f}\u00a0%", 100),
        "points": _formatted("{:z.1f}", 100),
        "decimal": _formatted("{:.3f}"),
        "count": _formatted("{:,.0f}"),
        "short": _short,
        "target": in_points,
    }
    environment.globals |= {"warning": opening.warning}
    return environment


def _formatted(template: str, factor: float = 1) -> Callable[[float | None], str]:
    return lambda value: "n/a" if value is None else template.format(factor * value).replace("-", MINUS)


def _short(value: float | None) -> str:
    """Three digits, or all before the point: 0.0310, 31.0, 3,120."""
    if not value:
        return "n/a" if value is None else "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
