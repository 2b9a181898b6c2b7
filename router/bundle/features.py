"""Hand features of what is scored: counts show how much work it describes, hashed words show its kind."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.bundle import text_arrays, text_counts
from router.bundle.scored import COUNTS, View, view
from router.bundle.text_counts import WORD_BUCKETS
from router.domain import Prompt

VERSION = "static-4"
"""Changes with every change of what `extract` returns; a bundle names the version it was trained on."""

NAMES = (
    *text_counts.NAMES,
    "scripts",
    *COUNTS,
    *(f"word bucket {i}" for i in range(WORD_BUCKETS)),
)
"""Meanings of the columns, for explanations."""

WIDTH = len(NAMES)
HAND = WIDTH - WORD_BUCKETS
"""Number of counts, which are the first columns; the others say whether a word occurs."""

TEXT, CONVERSATION = len(text_counts.NAMES), HAND - len(COUNTS)
"""Where the counts of the text itself end, and where those of the conversation begin."""

FEW = 12
"""So many prompts are read one by one: arrays begin to pay with the next."""


def extract(prompts: Sequence[Prompt]) -> NDArray[np.float32]:
    """Feature matrix [prompts, WIDTH]; counts as log(1 + n), words as present or absent."""
    return of_views(list(map(view, prompts)))


def of_views(views: Sequence[View]) -> NDArray[np.float32]:
    """As `extract`, from what is scored of each prompt."""
    matrix = _one_by_one(views) if len(views) <= FEW else _at_once(views)
    # Whole columns at once: one log1p for all prompts.
    np.log1p(matrix[:, :HAND], out=matrix[:, :HAND])
    return matrix


def _one_by_one(views: Sequence[View]) -> NDArray[np.float32]:
    """Counts as they are, and 1 for every word that occurs."""
    matrix = np.zeros((len(views), WIDTH), dtype=np.float32)
    counts: list[list[int]] = []
    present: list[int] = []
    for first, one in zip(range(HAND, matrix.size, WIDTH), views, strict=True):
        of_text, buckets = text_counts.read(one.text)
        counts.append([*of_text, text_counts.scripts(one.text), *one.counts])
        present += [first + bucket for bucket in buckets]
    matrix[:, :HAND] = np.array(counts).reshape(-1, HAND)
    matrix.put(present, 1)
    return matrix


def _at_once(views: Sequence[View]) -> NDArray[np.float32]:
    """As `_one_by_one`, in arrays where texts are as good as ASCII."""
    matrix = np.zeros((len(views), WIDTH), dtype=np.float32)
    plain = {row: text for row, one in enumerate(views) if (text := text_counts.as_ascii(one.text)) is not None}
    others = [row for row in range(len(views)) if row not in plain]
    matrix[others] = _one_by_one([views[row] for row in others])
    rows = np.array(list(plain), dtype=np.int64)
    for first in range(0, len(rows), text_arrays.MOST):
        part = rows[first : first + text_arrays.MOST]
        counts, texts, buckets = text_arrays.read([plain[row] for row in part])
        matrix[part, :TEXT] = counts
        matrix[part, CONVERSATION:HAND] = [views[row].counts for row in part]
        matrix[part[texts], HAND + buckets] = 1
    return matrix
