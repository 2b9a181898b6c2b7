"""What long work says on standard error: a line a stage, and where no terminal shows a bar, a line a tenth."""

import sys


def say(line: str) -> None:
    """Print a line at once."""
    print(line, file=sys.stderr, flush=True)


class Tenths:
    """Says how much of some work is done, at each tenth of it. On a terminal it is silent, since bars show the same."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done = what, total, done
        self._silent = sys.stderr.isatty()

    def add(self, count: int) -> None:
        """So much more is done."""
        before, self._done = self._done, self._done + count
        if not self._silent and 10 * before // self._total < 10 * self._done // self._total:
            say(f"{self._what}: {self._done:,} of {self._total:,}")
