"""Prompts -> the inputs of a bundle's graph, the same in training and in serving: hand features and token ids.

The graph turns the token ids into a vector, by a table of token vectors or by an encoder.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.bundle.features import of_views
from router.bundle.scored import view
from router.bundle.token_cache import ID_BYTES, Ids, Pieces, packed
from router.domain import Prompt


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
        # The file may have asked for other padding and lengths; the graph was trained with these.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._max_tokens = max_tokens
        # Asked for only where the tokenizer adds some.
        self._special = self._tokenizer.num_special_tokens_to_add(False) > 0
        self._pieces = Pieces.of(self._tokenizer)
        # The graph reads `max_tokens`, so no more of a text is read than they can hold.
        self._reach = None if self._pieces is None else max_tokens * self._pieces.longest_token

    def __call__(self, prompts: Sequence[Prompt]) -> dict[str, NDArray[Any]]:
        """The graph's inputs for some prompts."""
        views = list(map(view, prompts))
        return {"features": of_views(views), "tokens": _matrix([self._ids(one.text) for one in views])}

    def tokens(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of each prompt."""
        return self._encoded([view(prompt).text for prompt in prompts])

    def padded(self, ids: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Token ids as a matrix [n, length], padded with -1; length is at least 1."""
        return _matrix(list(map(packed, ids)))

    def _ids(self, text: str) -> Ids:
        known = None
        if self._pieces is not None:
            known = self._pieces.tokens(text[: self._reach], self._max_tokens)
        return packed(self._encoded([text])[0]) if known is None else known[: ID_BYTES * self._max_tokens]

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        """Token ids by the whole tokenizer. The batch call releases the GIL, which `encode` would hold."""
        read = [text[: self._reach] for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(read, add_special_tokens=self._special)]


def _matrix(ids: Sequence[Ids]) -> NDArray[np.int64]:
    """Token ids as a matrix [n, length], padded with -1; length is at least 1."""
    if len(ids) == 1 and ids[0]:  # the usual case, without anything to pad
        return np.frombuffer(ids[0], dtype=np.int64).reshape(1, -1)
    length = max([ID_BYTES, *map(len, ids)])
    # All bits of -1 are set, so that bytes are padded, and no row is written.
    joined = b"".join([one.ljust(length, b"\xff") for one in ids])
    return np.frombuffer(joined, dtype=np.int64).reshape(len(ids), length // ID_BYTES)
