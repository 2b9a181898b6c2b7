"""Hand features of prompts: counts show how much work a prompt describes, hashed words show its kind."""

import re
from collections.abc import Sequence, Sized
from string import ascii_letters, ascii_uppercase, digits
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router.bundle.normal_form import normal_form
from router.domain import Prompt

VERSION = "static-2"
"""Changes with every change of what `extract` returns; a bundle names the version it was trained on."""

MAX_CHARACTERS = 16_384
"""Longer prompts are scored by their first part, so that one prompt cannot hold up the others."""

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
    "messages",
    *(f"count of {c!r}" for c in _COUNTED),
    *(f"word bucket {i}" for i in range(WORD_BUCKETS)),
)
"""Meanings of the columns, for explanations."""

WIDTH = len(NAMES)
HAND = WIDTH - WORD_BUCKETS
"""Number of counts, which are the first columns; the others say whether a word occurs."""


def scored_text(prompt: Prompt) -> str:
    """The part of a prompt that is scored, in Unicode normal form C: the same text, however it was typed."""
    # Cut before it is normalised, which takes time in proportion to the length.
    return normal_form(prompt.text[:MAX_CHARACTERS])[:MAX_CHARACTERS]  # a few characters have longer normal forms


def extract(prompts: Sequence[Prompt]) -> NDArray[np.float32]:
    """Feature matrix [prompts, WIDTH]; counts as log(1 + n), words as present or absent."""
    return of_texts(list(map(scored_text, prompts)), [len(prompt.messages) for prompt in prompts])


def of_texts(texts: Sequence[str], messages: Sequence[int]) -> NDArray[np.float32]:
    """As `extract`, from scored texts [prompts] and the numbers of messages [prompts] of their conversations."""
    matrix = np.zeros((len(texts), WIDTH), dtype=np.float32)
    counts: list[list[int]] = []
    present: list[int] = []
    for first, text, turns in zip(range(HAND, matrix.size, WIDTH), texts, messages, strict=True):
        read = _read(text)
        counts.append(_counts(read, turns))
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


def _counts(read: _Read, messages: int) -> list[int]:
    """The columns before HAND."""
    return [
        len(read.text),
        len(read.words),
        len(set(read.words)),
        max(map(len, read.words), default=0),
        len(read.numbers),
        sum(map(len, read.numbers)),
        max(map(len, read.numbers), default=0),
        read.capitals,
        messages,
        *map(read.text.count, _COUNTED),
    ]
