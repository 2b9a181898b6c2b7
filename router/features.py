"""Hand features of prompts: counts that tell how much work one describes, and hashed words that tell what kind."""

import re
from collections.abc import Sequence
from string import ascii_uppercase
from unicodedata import normalize
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router.domain import Prompt

VERSION = "static-2"
"""Changes with every change of what `extract` returns; a bundle names the version it was trained on."""

MAX_CHARACTERS = 16_384
"""Longer prompts are scored by their first part, so that one prompt can not hold up the others."""

WORD_BUCKETS = 128
_COUNTED = "+-*/=<>^%()[]{}#,.;:?!\"'`\n\\$"
_NUMBER = re.compile(r"\d+")
_CAPITALS = ascii_uppercase.encode()
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

CHARACTERS, DISTINCT, LONGEST_WORD, LONGEST_NUMBER, MESSAGES = map(
    NAMES.index, ("characters", "distinct words", "longest word", "longest number", "messages")
)
WIDTH = len(NAMES)
HAND = WIDTH - WORD_BUCKETS
"""The first columns are counts, the others words that are there or not."""


def scored_text(prompt: Prompt) -> str:
    """The part of a prompt that is scored, in Unicode normal form C: the same text, however it was typed."""
    return normalize("NFC", prompt.text[:MAX_CHARACTERS])


def extract(prompts: Sequence[Prompt]) -> NDArray[np.float32]:
    """Feature matrix [prompts, WIDTH]; counts as log(1 + n), words as present or absent."""
    matrix = np.zeros((len(prompts), WIDTH), dtype=np.float32)
    for row, prompt in zip(matrix, prompts, strict=True):
        text = scored_text(prompt)
        count(text, words(text), row)
        row[MESSAGES] = len(prompt.messages)
    np.log1p(matrix[:, :HAND], out=matrix[:, :HAND])
    return matrix


def words(text: str) -> list[str]:
    """Runs of letters."""
    return _WORD.findall(text)


def count(text: str, words: list[str], row: NDArray[np.float32]) -> None:
    """Put what a text with these words comes to into a row [WIDTH] of zeros: plain counts, before the logarithm."""
    numbers = _NUMBER.findall(text)
    row[:HAND] = [
        len(text),
        len(words),
        len(set(words)),
        max(map(len, words), default=0),
        len(numbers),
        sum(map(len, numbers)),
        max(map(len, numbers), default=0),
        _capitals(text),
        0,
        *map(text.count, _COUNTED),
    ]
    row[[HAND + _bucket(word) for word in set(words)]] = 1.0


def _bucket(word: str) -> int:
    return crc32(word.lower().encode()) % WORD_BUCKETS


def _capitals(text: str) -> int:
    if text.isascii():
        return len(text) - len(text.encode().translate(None, _CAPITALS))
    return sum(map(str.isupper, text))
