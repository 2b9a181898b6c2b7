"""Draws docs/gain.svg from the report of the shipped bundle: `make picture`."""

import json
import sys
from pathlib import Path

from training.report.figures import figures

REPORT = Path(__file__).parents[1] / "router" / "models" / "pocket-router" / "report.json"

STYLE = """<style>
  svg { color: #1b1f24; --faint: #59626b; --accent: #0a5fb4; font-family: system-ui, sans-serif }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; color: #e6e8ea; --faint: #9aa4ae; --accent: #6cb3ff }
  }
</style>"""
"""The colours that the report's page gives its figures; alone, a figure needs its own."""


def picture() -> str:
    """Accuracy against thinking tokens on the test split: the router with its targets, fixed budgets, the oracle."""
    svg = str(figures(json.loads(REPORT.read_text()))["frontier"]["wide"])
    head, end, body = svg.partition(">")
    return f"{head}{end}\n{STYLE}{body}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture())
