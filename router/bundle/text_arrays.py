"""The counts and the buckets of many ASCII texts at once: those of `text_counts`, number by number.

Every step goes over the characters of all texts, joined. A CRC is linear: a letter has a number by its distance from
the end of its word, and the CRC of a word is these numbers combined by XOR, and one for its length.
"""

from collections.abc import Iterator, Sequence
from os import urandom
from string import ascii_lowercase, ascii_uppercase, digits
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router.bundle.text_counts import NAMES, SIGNS, WORD_BUCKETS

Integers = NDArray[np.int64]

MOST = 64
"""Most texts at once: more would take no less time each."""

_OTHER, _LETTER, _CAPITAL, _DIGIT, _FIRST_SIGN = range(5)
"""Kinds of characters; the further signs follow the first one."""

_KINDS = _FIRST_SIGN + len(SIGNS)
_TO_KIND = bytearray(256)
"""The kind of a character by its code, for `bytes.translate`."""

for _kind, _characters in enumerate((ascii_lowercase, ascii_uppercase, digits, *SIGNS), start=_LETTER):
    for _code in _characters.encode():
        _TO_KIND[_code] = _kind

_REACH = 64
"""Letters of the longest word that the table holds; longer ones are hashed one by one."""

_BUCKET_BITS = WORD_BUCKETS.bit_length() - 1
_WORD_BITS = 64 - MOST.bit_length() + 1
"""Bits of a word's number, below those of its text: its bucket's, and the others random."""


def _crcs() -> Iterator[NDArray[np.uint32]]:
    """CRCs of bytes [256], followed by 0, 1, 2 ... zeros; without the part that depends on the length alone."""
    table = np.array([crc32(bytes([code])) ^ crc32(b"\0") for code in range(256)], dtype=np.uint32)
    found = table
    for _ in range(_REACH):
        yield found
        found = (found >> np.uint32(8)) ^ table[found & 255]


def _numbers() -> NDArray[np.uint64]:
    """A number for every letter, by its distance from the end of its word and its code [_REACH * 256].

    Its lower bits are the CRC's of the small letter. The upper ones tell words apart, for each case its own. They are
    drawn by each process, so that nobody can look for words that have the same: one pair in 2 ** 50 has.
    """
    lowered = np.frombuffer(bytes(range(256)).lower(), dtype=np.uint8)
    drawn = np.frombuffer(urandom(8 * _REACH * 256), dtype=np.uint64).reshape(_REACH, 256) % (1 << _WORD_BITS)
    buckets = np.array(list(_crcs()))[:, lowered] % WORD_BUCKETS
    return (drawn >> np.uint64(_BUCKET_BITS) << np.uint64(_BUCKET_BITS) | buckets.astype(np.uint64)).ravel()


_NUMBERS = _numbers()
_LENGTHS = np.array([crc32(bytes(length)) % WORD_BUCKETS for length in range(_REACH + 1)], dtype=np.uint64)


def read(texts: Sequence[str]) -> tuple[Integers, Integers, Integers]:
    """What `text_counts.read` gives for each of at most MOST texts of ASCII.

    Returns:
        Counts [texts, NAMES]; for every word [words] the position of its text; and its bucket.
    """
    joined = "\0".join(["", *texts, ""]).encode()
    sizes = np.array(list(map(len, texts)))
    ends = np.cumsum(sizes + 1)
    kinds = np.frombuffer(joined.translate(_TO_KIND), dtype=np.uint8)
    words, numbers = _runs(kinds - np.uint8(_LETTER) <= _CAPITAL - _LETTER, ends), _runs(kinds == _DIGIT, ends)
    hashed = _hashed(joined, words)
    by_kind = _by_kind(kinds, ends)
    counts = np.empty((len(texts), len(NAMES)), dtype=np.int64)
    counts[:, 0] = sizes
    counts[:, 1] = np.bincount(words.texts, minlength=len(texts))
    counts[:, 2] = _distinct(hashed, words.texts, len(texts))
    counts[:, 3] = _longest(words, len(texts))
    counts[:, 4] = np.bincount(numbers.texts, minlength=len(texts))
    counts[:, 5] = by_kind[:, _DIGIT]
    counts[:, 6] = _longest(numbers, len(texts))
    counts[:, 7] = by_kind[:, _CAPITAL]
    counts[:, 8:] = by_kind[:, _FIRST_SIGN:]
    return counts, words.texts, (hashed % WORD_BUCKETS).astype(np.int64)


class _Runs(NamedTuple):
    """Runs of one kind of characters: where they begin, their lengths, and the positions of their texts."""

    starts: Integers
    lengths: Integers
    texts: Integers


def _runs(mask: NDArray[np.bool_], ends: Integers) -> _Runs:
    """The runs in a mask over all characters, of which the first and the last are in no run."""
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    starts = edges[::2]
    return _Runs(starts, edges[1::2] - starts, np.searchsorted(ends, starts))


def _by_kind(kinds: NDArray[np.uint8], ends: Integers) -> Integers:
    """How often each kind occurs in each text [texts, kinds]; small letters are not counted."""
    at = np.flatnonzero(kinds > _LETTER)
    cells = np.searchsorted(ends, at) * _KINDS + kinds[at]
    return np.bincount(cells, minlength=len(ends) * _KINDS).reshape(-1, _KINDS)


def _longest(runs: _Runs, texts: int) -> Integers:
    longest = np.zeros(texts, dtype=np.int64)
    np.maximum.at(longest, runs.texts, runs.lengths)
    return longest


def _hashed(joined: bytes, words: _Runs) -> NDArray[np.uint64]:
    """The number of every word [words]: its bucket in the lower bits, and what tells it from others in the upper."""
    firsts = np.cumsum(words.lengths) - words.lengths
    # Positions of all letters, and how far each is from the end of its word.
    letters = np.arange(words.lengths.sum()) + np.repeat(words.starts - firsts, words.lengths)
    from_end = np.repeat(words.starts + words.lengths - 1, words.lengths) - letters
    codes = np.frombuffer(joined, dtype=np.uint8)[letters]
    each = _NUMBERS[np.minimum(from_end, _REACH - 1) * 256 + codes]
    hashed = np.bitwise_xor.reduceat(each, firsts) ^ _LENGTHS[np.minimum(words.lengths, _REACH)]
    for i in np.flatnonzero(words.lengths > _REACH):
        word = joined[words.starts[i] : words.starts[i] + words.lengths[i]]
        hashed[i] = hash(word) % (1 << _WORD_BITS - _BUCKET_BITS) << _BUCKET_BITS | crc32(word.lower()) % WORD_BUCKETS
    return hashed


def _distinct(hashed: NDArray[np.uint64], texts: Integers, n: int) -> Integers:
    """The number of different words of each text [n]."""
    found = np.sort(texts.astype(np.uint64) << np.uint64(_WORD_BITS) | hashed)
    new = np.append(True, found[1:] != found[:-1])[: len(found)]
    return np.bincount((found[new] >> np.uint64(_WORD_BITS)).astype(np.int64), minlength=n)
