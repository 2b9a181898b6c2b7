"""Prompt -> model inputs, the same in training and in serving.

Hand features: counts that tell how much work a prompt describes, and hashed words that tell what kind. Token ids:
what the graph turns into a vector, by a table of token vectors or by an encoder.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_uppercase
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
REMEMBERED_WORDS, LONG_WORD = 16_384, 24
"""Words that are remembered, and the characters of one that is too long for it: callers must not fill the memory."""

SPACES = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}
"""How SentencePiece's tokenizers mark words."""

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
        bucket = _remembered_bucket if max(map(len, words), default=0) <= LONG_WORD else _bucket
        row[[hand + bucket(word) for word in set(words)]] = 1.0
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
        self._words = Words.of(self._tokenizer, max_tokens)

    def __call__(self, prompts: Sequence[Prompt]) -> dict[str, NDArray[Any]]:
        """The graph's inputs for some prompts."""
        return {"features": extract(prompts), "tokens": self.padded(self.tokens(prompts))}

    def tokens(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of each prompt."""
        texts = list(map(scored_text, prompts))
        if self._words is not None and all(map(self._words.apart, texts)):
            return list(map(self._words.ids, texts))
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=self._special)
        return [encoding.ids for encoding in encodings]

    def padded(self, ids: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Ids as a matrix [n, length], length at least 1."""
        matrix = np.full((len(ids), max(1, *map(len, ids), 1)), -1, dtype=np.int64)
        for row, one in zip(matrix, ids, strict=True):
            row[: len(one)] = one
        return matrix


class Words:
    """Token ids of words, remembered: the same ids as of the whole text, for a fifth of the work.

    True of tokenizers in the manner of SentencePiece's BPE: spaces become "▁", and where no token of the vocabulary
    holds one behind another character, no merge crosses the beginning of a word.
    """

    def __init__(self, tokenizer: Tokenizer, before: list[int], max_tokens: int) -> None:
        self._before = before
        self._max_tokens = max_tokens
        self._special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]

        @lru_cache(REMEMBERED_WORDS)
        def remembered(word: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(word, add_special_tokens=False).ids)

        self._word = remembered

    @classmethod
    def of(cls, tokenizer: Tokenizer, max_tokens: int) -> "Words | None":
        """None where words can not be told apart."""
        told = json.loads(tokenizer.to_str())
        if told["pre_tokenizer"] is not None or told["model"]["type"] != "BPE" or told["normalizer"] != SPACES:
            return None
        before = tokenizer.encode("").ids
        around = tokenizer.encode("a").ids != before + tokenizer.encode("a", add_special_tokens=False).ids
        crossing = re.compile("[^▁]▁")
        if around or any(map(crossing.search, tokenizer.get_vocab(with_added_tokens=False))):
            return None
        return cls(tokenizer, before, max_tokens)

    def apart(self, text: str) -> bool:
        """Its words stand one space apart, none is too long, and nothing in it means something to the tokenizer."""
        if "▁" in text or not min(lengths := list(map(len, text.split(" ")))) > 0 or max(lengths) > LONG_WORD:
            return False
        return not any(special in text for special in self._special)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text whose words stand apart."""
        ids = self._before.copy()
        for word in text.split(" "):
            ids += self._word(word)
        return ids[: self._max_tokens]


def _bucket(word: str) -> int:
    return crc32(word.lower().encode()) % WORD_BUCKETS


_remembered_bucket = lru_cache(REMEMBERED_WORDS)(_bucket)


def _capitals(text: str) -> int:
    if text.isascii():
        return len(text) - len(text.encode().translate(None, _CAPITALS))
    return sum(map(str.isupper, text))


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
        _capitals(text),
        messages,
        *map(text.count, _COUNTED),
    ]
