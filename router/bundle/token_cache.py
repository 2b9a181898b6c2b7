"""Token ids of the pieces of a text between spaces, remembered: most of a text has been seen before.

The ids of a text are those of its pieces, put together: true of tokenizers in the manner of SentencePiece's BPE, where
spaces become "▁". If no token of the vocabulary holds one behind another character, no merge crosses the beginning of a
piece.
"""

import json
import re
from collections import OrderedDict
from itertools import chain

from tokenizers import Tokenizer
from tokenizers.models import BPE

REMEMBERED, LONGEST = 8_192, 32
"""Pieces that are remembered, and the characters of one that is too long for it: callers must not fill the memory."""

SPACES = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}
"""How SentencePiece's tokenizers mark words."""

Ids = tuple[int, ...]


class Pieces:
    """Token ids by piece; those learned first are forgotten first."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._model = tokenizer.model
        self._special = _added(tokenizer)
        self._before: list[int] = tokenizer.encode("").ids
        self._ids: OrderedDict[str, Ids] = OrderedDict()

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

    def tokens(self, text: str) -> list[int] | None:
        """Token ids of a text; None where they are not those of its pieces."""
        pieces = text.split(" ")
        ids = list(map(self._ids.get, pieces))
        if None in ids:
            if not self._fits(text, pieces):
                return None
            ids = [self._read(piece) if known is None else known for piece, known in zip(pieces, ids, strict=True)]
        return [*self._before, *chain.from_iterable(ids)]  # type: ignore[arg-type]

    def _fits(self, text: str, pieces: list[str]) -> bool:
        """Pieces stand one space apart, and nothing means something to the tokenizer."""
        return all(pieces) and "▁" not in text and not any(special in text for special in self._special)

    def _read(self, piece: str) -> Ids:
        """Its ids, remembered from now on; the model alone takes a third of the tokenizer's time."""
        ids = tuple([token.id for token in self._model.tokenize(f"▁{piece}")])
        if len(piece) <= LONGEST:
            self._ids[piece] = ids
            if len(self._ids) > REMEMBERED:
                self._ids.popitem(last=False)
        return ids


def _added(tokenizer: Tokenizer) -> list[str]:
    """Texts that mean something to it as they are."""
    return [token.content for token in tokenizer.get_added_tokens_decoder().values()]
