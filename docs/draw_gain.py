"""Draws docs/gain.svg from the report of the shipped bundle: `make picture`."""

import json
import sys
from pathlib import Path

from training.report.figures import figures

REPORT = Path(__file__).parents[1] / "router" / "models" / "pocket-router" / "report.json"

STYLE = """<style>
  svg { color: #1b1f24; --faint: #6b7178; --router: #0072b2 }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; color: #e6e8ea; --faint: #9aa1a8; --router: #56b4e9 }
  }
</style>"""
"""The colours that the report's page gives its figures; alone, a figure needs its own."""


def picture() -> str:
    """Accuracy against thinking tokens: the router, fixed budgets, baselines and oracles on the test split."""
    svg = str(figures(json.loads(REPORT.read_text()))["frontier"])
    head, end, body = svg.partition(">")
    return f"{head}{end}\n{STYLE}{body}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture())
