"""The table of attacks, `tests/cases.md`: its rows, and how many inputs their tests try.

`python -m tests.support.cases` prints the counts by area.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS / "cases.md"
HEADS = ("stream", "situation", "---")
"""First cells of lines that are no cases."""


@dataclass(frozen=True)
class Case:
    """One kind of attack: its area, the situation, and the tests by path and name, relative to `tests/`."""

    area: str
    situation: str
    tests: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The tests that do not exist."""
        return [test for test in self.tests if not _exists(test)]


def cases() -> list[Case]:
    """The rows of the table."""
    area, found = "", []
    for line in TABLE.read_text().splitlines():
        if line.startswith("## "):
            area = line.removeprefix("## ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] not in HEADS:
            found.append(Case(area, cells[0], tuple(re.findall("`([^`]+)`", cells[-1]))))
    return found


def inputs(tests: Sequence[str]) -> int:
    """How many inputs the tests try, as pytest collects them."""
    named = [str(TESTS / test) for test in dict.fromkeys(tests)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", *named],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    return sum("::" in line for line in done.stdout.splitlines())


def _exists(test: str) -> bool:
    path, _, name = test.partition("::")
    return name in _names(TESTS / path)


@cache
def _names(path: Path) -> frozenset[str]:
    """The test functions of a file."""
    if not path.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions))


def main() -> None:
    """Print kinds, tests and inputs by area."""
    known = cases()
    print(f"{'area':24s}{'kinds':>8s}{'covered':>9s}{'tests':>8s}{'inputs':>8s}")
    for area in dict.fromkeys(case.area for case in known):
        mine = [case for case in known if case.area == area]
        tests = [test for case in mine for test in case.tests if test not in case.missing]
        covered = sum(bool(case.tests) and not case.missing for case in mine)
        print(f"{area:24s}{len(mine):8d}{covered:9d}{len(set(tests)):8d}{inputs(tests):8d}")


if __name__ == "__main__":
    main()
