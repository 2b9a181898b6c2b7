"""A cache of token ids by piece, where pieces are what stands between spaces: most pieces have been seen before.

The ids of a text are the ids of its pieces, joined. That holds for tokenizers in the manner of SentencePiece's BPE,
which turn spaces into "▁" and merge pairs of tokens: if no token of the vocabulary has a "▁" behind another character,
no merge can cross the beginning of a piece. `Pieces.of` checks all that, since a wrong id would only show as a worse
score.
"""

import json
import re
from array import array
from collections import OrderedDict
from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.models import BPE

REMEMBERED, LONGEST = 8_192, 32
"""Pieces in the cache, and characters of the longest one there: callers must not be able to fill the memory."""

SPACES = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}
"""The normalizer of SentencePiece's tokenizers, which marks words."""

_NUMBER = re.compile(r"\d\d\d")
"""What long numbers have, which are seldom met again: they would drive the words out."""

Ids = bytes
ID_BYTES = 8
"""Token ids as the graph reads them: joined and padded, they are a matrix without a number in Python."""


def packed(ids: Iterable[int]) -> Ids:
    """Token ids as bytes."""
    return array("q", ids).tobytes()


class Pieces:
    """Token ids by piece; the oldest are dropped first. Threads may share it.

    Args:
        most: pieces in the cache.
    """

    def __init__(self, tokenizer: Tokenizer, most: int = REMEMBERED) -> None:
        self._most = most
        self._model = tokenizer.model
        self._special = _added(tokenizer)
        self._before = packed(tokenizer.encode("").ids)
        self.longest_token = max(map(len, tokenizer.get_vocab()), default=1)
        """Characters of the longest token."""
        self._ids: OrderedDict[str, Ids] = OrderedDict()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Pieces | None":
        """A cache for a tokenizer; None where the tokens of a text are not those of its pieces."""
        if tokenizer.pre_tokenizer is not None or not isinstance(tokenizer.model, BPE) or tokenizer.normalizer is None:
            return None
        # The normalizer must do nothing but mark the spaces: any other change could depend on neighbours.
        spaces = json.loads(tokenizer.normalizer.__getstate__()) == SPACES
        alone = tokenizer.encode("").ids + tokenizer.encode("a", add_special_tokens=False).ids
        if not spaces or tokenizer.encode("a").ids != alone:
            return None
        # A token such as "a▁b" could be merged across the beginning of a piece.
        crossing = re.compile("[^▁]▁")
        # A special token with a space in it spans pieces, dropout draws merges at random, a suffix marks the ends of
        # words, where spaces mark their beginnings, and a fused token of the unknown may be as long as the text.
        model = tokenizer.model
        if (
            any(" " in token for token in _added(tokenizer))
            or model.dropout
            or model.end_of_word_suffix
            or (model.fuse_unk and not model.byte_fallback)
        ):
            return None
        return None if any(map(crossing.search, tokenizer.get_vocab(with_added_tokens=False))) else cls(tokenizer)

    def tokens(self, text: str, most: int) -> Ids | None:
        """Token ids of a text, at least the first `most`; None where the text needs the whole tokenizer."""
        # A piece has one token at least, so no more pieces are read than there may be tokens.
        pieces = text.split(" ", most)[:most]
        known = list(map(self._ids.get, pieces))
        if None in known:
            new = [piece for piece, ids in zip(pieces, known, strict=True) if ids is None]
            if not self._fit(new):
                return None
            read = map(self._read, new)
            known = [next(read) if ids is None else ids for ids in known]
        return b"".join([self._before, *known])  # type: ignore[list-item]

    def _fit(self, pieces: list[str]) -> bool:
        """True if single spaces separate the pieces and none holds a special token: else ids depend on neighbours."""
        text = " ".join(pieces)
        return all(pieces) and "▁" not in text and not any(special in text for special in self._special)

    def _read(self, piece: str) -> Ids:
        """A piece's ids, cached from now on; the model alone takes a third of the time of the whole tokenizer."""
        ids = packed([token.id for token in self._model.tokenize(f"▁{piece}")])
        if len(piece) <= LONGEST and _NUMBER.search(piece) is None:
            self._ids[piece] = ids
            # The oldest goes, not the least used: to keep an order of use, every look-up would have to write.
            if len(self._ids) > self._most:
                self._ids.popitem(last=False)
        return ids


def _added(tokenizer: Tokenizer) -> list[str]:
    """Texts that the tokenizer reads as a token of their own, wherever they stand."""
    return [token.content for token in tokenizer.get_added_tokens_decoder().values()]
