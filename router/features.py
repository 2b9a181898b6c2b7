"""Prompt -> model inputs, the same in training and in serving.

Hand features: counts that tell how much work a prompt describes, and hashed words that tell what kind. Token ids:
what the graph turns into a vector, by a table of token vectors or by an encoder.
"""

import re
from collections.abc import Sequence
from typing import Any
from unicodedata import normalize
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.domain import Prompt

VERSION = "static-2"
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


def scored_text(prompt: Prompt) -> str:
    """The part of a prompt that is scored, in Unicode normal form C: the same text, however it was typed."""
    return normalize("NFC", prompt.text[:MAX_CHARACTERS])


def extract(prompts: Sequence[Prompt]) -> NDArray[np.float32]:
    """Feature matrix [prompts, WIDTH]; counts as log(1 + n), words as present or absent."""
    matrix = np.zeros((len(prompts), WIDTH), dtype=np.float32)
    hand = WIDTH - WORD_BUCKETS
    for row, prompt in zip(matrix, prompts, strict=True):
        text = scored_text(prompt)
        words = _WORD.findall(text)
        row[:hand] = _counts(text, words, len(prompt.messages))
        for word in set(words):
            row[hand + crc32(word.lower().encode()) % WORD_BUCKETS] = 1.0
    np.log1p(matrix[:, :hand], out=matrix[:, :hand])
    return matrix


class Featurizer:
    """Both inputs of a bundle's graph: "features" [n, WIDTH] and "tokens" [n, length], padded with -1.

    Raises:
        ValueError: the tokenizer is not one that `tokenizers` can read.
    """

    def __init__(self, tokenizer: bytes, max_tokens: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_buffer(tokenizer)
        except Exception as error:  # tokenizers raises a bare Exception
            raise ValueError(str(error)) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._special = self._tokenizer.num_special_tokens_to_add(False) > 0

    def __call__(self, prompts: Sequence[Prompt]) -> dict[str, NDArray[Any]]:
        """The graph's inputs for some prompts."""
        return {"features": extract(prompts), "tokens": self.padded(self.tokens(prompts))}

    def tokens(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of each prompt."""
        encodings = self._tokenizer.encode_batch_fast(list(map(scored_text, prompts)), add_special_tokens=self._special)
        return [encoding.ids for encoding in encodings]

    def padded(self, ids: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Ids as a matrix [n, length], length at least 1."""
        matrix = np.full((len(ids), max(1, *map(len, ids), 1)), -1, dtype=np.int64)
        for row, one in zip(matrix, ids, strict=True):
            row[: len(one)] = one
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
