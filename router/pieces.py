"""What the pieces of a text between spaces come to, remembered: most of a text has been seen before.

Counts and token ids of a text are those of its pieces, put together. True of counts, as no word and no number reaches
over a space; true of tokenizers in the manner of SentencePiece's BPE, where spaces become "▁": if no token of the
vocabulary holds one behind another character, no merge crosses the beginning of a piece.
"""

import json
import re
import threading
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import BPE

from router import features
from router.features import CHARACTERS, DISTINCT, HAND, LONGEST_NUMBER, LONGEST_WORD, MAX_CHARACTERS, WIDTH

REMEMBERED, LONGEST = 8_192, 32
"""Pieces that are remembered, and the characters of one that is too long for it: callers must not fill the memory."""

LEARNED = 4
"""Pieces of one text that are: to learn one costs as much as to read three or four."""

SPACES = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}
"""How SentencePiece's tokenizers mark words."""

_ONES = np.ones(MAX_CHARACTERS + 1, dtype=np.float32)
Places = list[int]
"""Where the pieces of a text are remembered, in the order of the text."""


class Pieces:
    """Counts and token ids by piece."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = _added(tokenizer)
        self._before = tokenizer.encode("").ids
        self._counts = np.zeros((REMEMBERED, WIDTH), dtype=np.float32)
        self._words: list[frozenset[str]] = []
        self._longest_word: list[int] = []
        self._longest_number: list[int] = []
        self._ids: list[tuple[int, ...]] = []
        self._places: dict[str, int] = {}
        self._one = threading.Lock()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Pieces | None":
        """None where the tokens of a text are not those of its pieces."""
        if tokenizer.pre_tokenizer is not None or not isinstance(tokenizer.model, BPE) or tokenizer.normalizer is None:
            return None
        spaces = json.loads(tokenizer.normalizer.__getstate__()) == SPACES
        alone = tokenizer.encode("").ids + tokenizer.encode("a", add_special_tokens=False).ids
        if not spaces or tokenizer.encode("a").ids != alone:
            return None
        crossing = re.compile("[^▁]▁")
        if (
            any(" " in token for token in _added(tokenizer))
            or tokenizer.model.dropout
            or tokenizer.model.end_of_word_suffix
        ):
            return None
        return None if any(map(crossing.search, tokenizer.get_vocab(with_added_tokens=False))) else cls(tokenizer)

    @property
    def remembered(self) -> int:
        """How many pieces are."""
        return len(self._ids)

    @property
    def full(self) -> bool:
        """No more are; whoever owns this begins anew."""
        return self.remembered >= REMEMBERED

    def places(self, text: str) -> Places | None:
        """Its pieces, where all are remembered by now; a few new ones a text are."""
        pieces = text.split(" ")
        places = list(map(self._places.get, pieces))
        if None not in places:
            return places  # type: ignore[return-value]
        if not self._fits(text, pieces):
            return None
        unknown = dict.fromkeys(piece for piece, place in zip(pieces, places, strict=True) if place is None)
        for piece in islice(unknown, LEARNED):
            self._remember(piece)
        places = list(map(self._places.get, pieces))
        return None if None in places else places  # type: ignore[return-value]

    def count(self, text: str, places: Places, row: NDArray[np.float32]) -> None:
        """As `features.count`, of the text with these pieces."""
        np.dot(_ONES[: len(places)], self._counts.take(places, axis=0), out=row)
        row[CHARACTERS] = len(text)
        row[DISTINCT] = len(frozenset().union(*map(self._words.__getitem__, places)))
        row[LONGEST_WORD] = max(map(self._longest_word.__getitem__, places))
        row[LONGEST_NUMBER] = max(map(self._longest_number.__getitem__, places))
        np.minimum(row[HAND:], 1, out=row[HAND:])

    def tokens(self, places: Places) -> list[int]:
        """Token ids of the text with these pieces."""
        return list(chain(self._before, *map(self._ids.__getitem__, places)))

    def _fits(self, text: str, pieces: list[str]) -> bool:
        """Pieces stand one space apart, none is too long, and nothing means something to the tokenizer."""
        apart = all(pieces) and max(map(len, pieces)) <= LONGEST and "▁" not in text
        return apart and not any(special in text for special in self._special)

    def _remember(self, piece: str) -> None:
        """All of it or nothing, whatever the tokenizer says."""
        words, row = features.words(piece), np.zeros(WIDTH, dtype=np.float32)
        features.count(piece, words, row)
        ids = tuple(self._tokenizer.encode(piece, add_special_tokens=False).ids)
        with self._one:
            if self.full or piece in self._places:
                return
            place = len(self._ids)
            self._counts[place] = row
            self._words.append(frozenset(words))
            self._longest_word.append(int(row[LONGEST_WORD]))
            self._longest_number.append(int(row[LONGEST_NUMBER]))
            self._ids.append(ids)
            self._places[piece] = place  # last: who finds it finds the rest


def _added(tokenizer: Tokenizer) -> list[str]:
    """Texts that mean something to it as they are."""
    return [token.content for token in tokenizer.get_added_tokens_decoder().values()]
