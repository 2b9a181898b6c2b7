"""Processes that a process has started, as the kernel lists them."""

from contextlib import suppress
from pathlib import Path


def children(process: int | str = "self") -> set[int]:
    """Ids of a process's children."""
    found: set[int] = set()
    for task in Path(f"/proc/{process}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended since the folder was read
            found.update(map(int, (task / "children").read_text().split()))
    return found
