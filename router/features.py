"""Prompt -> model inputs, the same in training and in serving.

Static features: counts that tell how much work a prompt describes, and hashed words that tell what kind.
"""

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router.domain import Prompt

VERSION = "static-1"
"""Changes with every change of what `extract` returns; a bundle names the version it was trained on."""

MAX_CHARACTERS = 16_384
"""Longer prompts are scored by their first part, so that one prompt can not hold up the others."""

WORD_BUCKETS = 128

_COUNTED = "+-*/=<>^%()[]{}#,.;:?!\"'`\n\\$"
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_]+")

NAMES = (
    "characters",
    "words",
    "distinct words",
    "longest word",
    "numbers",
    "digits",
    "longest number",
    "capital letters",
    "messages",
    *(f"count of {c!r}" for c in _COUNTED),
    *(f"word bucket {i}" for i in range(WORD_BUCKETS)),
)
"""What each column means, for explanations."""

WIDTH = len(NAMES)


def extract(prompts: Sequence[Prompt]) -> NDArray[np.float32]:
    """Feature matrix [prompts, WIDTH]; counts as log(1 + n), words as present or absent."""
    matrix = np.zeros((len(prompts), WIDTH), dtype=np.float32)
    hand = WIDTH - WORD_BUCKETS
    for row, prompt in zip(matrix, prompts, strict=True):
        text = prompt.text[:MAX_CHARACTERS]
        words = _WORD.findall(text)
        row[:hand] = _counts(text, words, len(prompt.messages))
        for word in set(words):
            row[hand + crc32(word.lower().encode()) % WORD_BUCKETS] = 1.0
    np.log1p(matrix[:, :hand], out=matrix[:, :hand])
    return matrix


def _counts(text: str, words: list[str], messages: int) -> list[int]:
    numbers = _NUMBER.findall(text)
    return [
        len(text),
        len(words),
        len(set(words)),
        max(map(len, words), default=0),
        len(numbers),
        sum(map(len, numbers)),
        max(map(len, numbers), default=0),
        sum(map(str.isupper, text)),
        messages,
        *map(text.count, _COUNTED),
    ]
