"""What is counted of a text, and the buckets of its words: the one definition, for one text after another.

`text_arrays` gives the same for many texts at once.
"""

import re
from collections.abc import Sequence, Sized
from string import ascii_letters, ascii_uppercase, digits
from typing import NamedTuple
from unicodedata import name
from zlib import crc32

SIGNS = "+-*/=<>^%()[]{}#,.;:?!\"'`\n\\$"
"""Characters that are counted one by one: signs of arithmetic, code, lists and quotations."""

NAMES = (
    "characters",
    "words",
    "distinct words",
    "longest word",
    "numbers",
    "digits",
    "longest number",
    "capital letters",
    *(f"count of {sign!r}" for sign in SIGNS),
)
"""Meanings of the counts."""

WORD_BUCKETS = 128

_WORD, _NUMBER, _BEYOND_ASCII = re.compile(r"[^\W\d_]+"), re.compile(r"\d+"), re.compile(r"[^\x00-\x7f]+")
_LETTERS, _DIGITS = (bytes(c if chr(c) in kept else ord(" ") for c in range(256)) for kept in (ascii_letters, digits))
"""Tables for `bytes.translate`: everything else becomes a space."""

_CAPITALS = ascii_uppercase.encode()


def read(text: str) -> tuple[list[int], set[int]]:
    """The counts, as NAMES has them, and the buckets of all words, below WORD_BUCKETS."""
    found = _read(text)
    counts = [
        len(text),
        len(found.words),
        len(set(found.words)),
        max(map(len, found.words), default=0),
        len(found.numbers),
        sum(map(len, found.numbers)),
        max(map(len, found.numbers), default=0),
        found.capitals,
        *map(text.count, SIGNS),
    ]
    # crc32, since Python's own hash of a word differs from process to process.
    return counts, {crc32(word) % WORD_BUCKETS for word in set(found.lowered)}


class _Read(NamedTuple):
    """A text taken apart: runs of letters, the same as lower-case UTF-8, and runs of digits."""

    words: Sequence[Sized]
    lowered: list[bytes]
    numbers: Sequence[Sized]
    capitals: int


def _read(text: str) -> _Read:
    """Take a text apart; ASCII gives the same either way."""
    # ASCII is read as bytes, which is several times as fast.
    data = text.encode("ascii", "ignore")
    capitals = len(data) - len(data.translate(None, _CAPITALS))
    if not text.isascii():
        words = _WORD.findall(text)
        lowered = [word.lower().encode() for word in words]
        return _Read(words, lowered, _NUMBER.findall(text), capitals + sum(map(str.isupper, _beyond_ascii(text))))
    letters = data.translate(_LETTERS)
    return _Read(letters.split(), letters.lower().split(), data.translate(_DIGITS).split(), capitals)


def scripts(text: str) -> int:
    """Scripts of the letters beyond ASCII: Greek, Arabic, and Latin with accents are three."""
    if text.isascii():
        return 0
    letters = filter(str.isalpha, set(_beyond_ascii(text)))
    return len({name(letter, "").partition(" ")[0] for letter in letters})


def as_ascii(text: str) -> str | None:
    """A text in ASCII of which the same is counted; None where letters or digits lie beyond ASCII, not dashes alone."""
    if text.isascii():
        return text
    if any(one.isalnum() or one.isupper() for one in set(_beyond_ascii(text))):
        return None
    return _BEYOND_ASCII.sub(lambda run: "\0" * len(run[0]), text)


def _beyond_ascii(text: str) -> str:
    return "".join(_BEYOND_ASCII.findall(text))
