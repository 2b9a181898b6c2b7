"""Hand features of what is scored: counts show how much work it describes, hashed words show its kind."""

import re
from collections.abc import Sequence, Sized
from string import ascii_letters, ascii_uppercase, digits
from typing import NamedTuple
from unicodedata import name
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router.bundle.scored import COUNTS, View, view
from router.domain import Prompt

VERSION = "static-4"
"""Changes with every change of what `extract` returns; a bundle names the version it was trained on."""

WORD_BUCKETS = 128
_COUNTED = "+-*/=<>^%()[]{}#,.;:?!\"'`\n\\$"
"""Characters that are counted one by one: signs of arithmetic, code, lists and quotations."""

_WORD, _NUMBER = re.compile(r"[^\W\d_]+"), re.compile(r"\d+")
_LETTERS, _DIGITS = (bytes(c if chr(c) in kept else ord(" ") for c in range(256)) for kept in (ascii_letters, digits))
"""Tables for `bytes.translate`: everything else becomes a space."""

_CAPITALS = ascii_uppercase.encode()

NAMES = (
    "characters",
    "words",
    "distinct words",
    "longest word",
    "numbers",
    "digits",
    "longest number",
    "capital letters",
    *(f"count of {c!r}" for c in _COUNTED),
    "scripts",
    *COUNTS,
    *(f"word bucket {i}" for i in range(WORD_BUCKETS)),
)
"""Meanings of the columns, for explanations."""

WIDTH = len(NAMES)
HAND = WIDTH - WORD_BUCKETS
"""Number of counts, which are the first columns; the others say whether a word occurs."""


def extract(prompts: Sequence[Prompt]) -> NDArray[np.float32]:
    """Feature matrix [prompts, WIDTH]; counts as log(1 + n), words as present or absent."""
    return of_views(list(map(view, prompts)))


def of_views(views: Sequence[View]) -> NDArray[np.float32]:
    """As `extract`, from what is scored of each prompt."""
    matrix = np.zeros((len(views), WIDTH), dtype=np.float32)
    counts: list[list[int]] = []
    present: list[int] = []
    for first, one in zip(range(HAND, matrix.size, WIDTH), views, strict=True):
        read = _read(one.text)
        counts.append([*_counts(read), _scripts(one.text), *one.counts])
        # crc32, since Python's own hash of a word differs from process to process.
        present += [first + crc32(word) % WORD_BUCKETS for word in set(read.lowered)]
    # Whole columns at once: one log1p for all prompts, and one `put` for all words.
    matrix[:, :HAND] = np.array(counts).reshape(-1, HAND)
    np.log1p(matrix[:, :HAND], out=matrix[:, :HAND])
    matrix.put(present, 1)
    return matrix


class _Read(NamedTuple):
    """A text taken apart: runs of letters, the same as lower-case UTF-8, and runs of digits."""

    text: str
    words: Sequence[Sized]
    lowered: list[bytes]
    numbers: Sequence[Sized]
    capitals: int


def _read(text: str) -> _Read:
    """Take a text apart; ASCII gives the same either way."""
    # ASCII is read as bytes, which is several times as fast.
    if not text.isascii():
        words = _WORD.findall(text)
        lowered = [word.lower().encode() for word in words]
        return _Read(text, words, lowered, _NUMBER.findall(text), sum(map(str.isupper, text)))
    data = text.encode()
    letters = data.translate(_LETTERS)
    capitals = len(data) - len(data.translate(None, _CAPITALS))
    return _Read(text, letters.split(), letters.lower().split(), data.translate(_DIGITS).split(), capitals)


def _counts(read: _Read) -> list[int]:
    """The columns that count what stands in the text."""
    return [
        len(read.text),
        len(read.words),
        len(set(read.words)),
        max(map(len, read.words), default=0),
        len(read.numbers),
        sum(map(len, read.numbers)),
        max(map(len, read.numbers), default=0),
        read.capitals,
        *map(read.text.count, _COUNTED),
    ]


def _scripts(text: str) -> int:
    """Scripts of the letters beyond ASCII: Greek, Arabic, and Latin with accents are three."""
    if text.isascii():
        return 0
    letters = {letter for letter in text if letter > "\x7f" and letter.isalpha()}
    return len({name(letter, "").partition(" ")[0] for letter in letters})
