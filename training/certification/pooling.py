"""Families of tasks, and those too small for a test of their own."""

from collections.abc import Sequence

import numpy as np

from training.arrays import Rows

OTHERS = "the other tasks"
"""The name of the pool."""


def family(task: str) -> str:
    """A task's family: the part of its name before the last slash, or the whole name without a slash."""
    return task.rpartition("/")[0] or task


def pools(families: Sequence[str], least: int) -> dict[str, Rows]:
    """Positions by family; families of fewer than `least` are pooled, with larger ones until the pool has as many.

    Args:
        families: of each group of prompts.
    """
    names, of = np.unique(np.asarray(families), return_inverse=True)
    parts = sorted(((str(name), np.flatnonzero(of == i)) for i, name in enumerate(names)), key=lambda one: len(one[1]))
    pooled: list[Rows] = []
    while parts and (len(parts[0][1]) < least or 0 < sum(map(len, pooled)) < least):
        pooled.append(parts.pop(0)[1])
    return {**dict(parts), **({OTHERS: np.sort(np.concatenate(pooled))} if pooled else {})}
