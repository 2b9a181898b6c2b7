"""The table of `make quality`: what is certified on every ladder, what it saves, and how often certificates fail."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD = (
    "ladder", "loss of at most", "certified", "loss, points", "saved against top, %", "saved against the hull, %",
    "points above the hull", "violated, %", "on unseen prompts, % (s.e., points)",
)  # fmt: skip


def table(figures: dict[str, Any]) -> str:
    """A Markdown table, a row for every ladder and target, from the reports of `quality.judged` by name."""
    rows = [row for name, report in figures.items() for row in _rows(name, report)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (HEAD, ("---",) * len(HEAD), *rows))


def _rows(name: str, report: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    certified = {policy["alpha"]: policy for policy in report["policies"]}
    for violation in report["violations"]:
        alpha = violation["alpha"]
        unseen = "" if violation["unseen_error"] is None else f" ({_points(violation['unseen_error'])})"
        yield (
            name,
            f"{alpha:g}",
            *_policy(certified.get(alpha)),
            f"{100 * violation['violated']:.1f}",
            f"{100 * violation['violated_unseen']:.1f}{unseen}",
        )


def _policy(policy: dict[str, Any] | None) -> tuple[str, ...]:
    if policy is None:
        return ("no", "-", "-", "-", "-")
    what = "by prompt" if policy["rung"] is None else f"{policy['rung']} for everybody"
    return (what, *(_interval(policy, *names) for names in FIGURES))


FIGURES = (
    ("loss", "loss_interval"),
    ("saved_against_top", "top_interval"),
    ("saved_against_hull", "hull_interval"),
    ("above_hull", "above_interval"),
)


def _interval(policy: dict[str, Any], value: str, interval: str) -> str:
    if policy[value] is None:
        return "unknown"
    low, high = policy[interval]
    return f"{_points(policy[value])} ({_points(low)} to {_points(high)})"


def _points(share: float) -> str:
    return f"{100 * share:z.1f}"


if __name__ == "__main__":
    written = json.loads(Path(sys.argv[1]).read_text())
    print(table({name: report for name, report in written.items() if "policies" in report}))
