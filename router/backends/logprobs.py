"""Log-probabilities of tokens, as the engines' APIs word them. Each function raises TypeError, ValueError, KeyError."""

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

from router.backends.http import Chunk, expect_few, expect_type
from router.backends.text import whole
from router.domain import TokenLogprob
from router.stopping.evidence import LEAST_LOGPROB

Top = tuple[tuple[str, float], ...]

LONGEST_TOKEN = 256
"""Characters of a token that are passed on."""


def of_chat(choice: Mapping[str, Any]) -> list[TokenLogprob]:
    """Those of a choice of the chat API."""
    return _placed(expect_few((expect_type(dict, choice.get("logprobs")) or {}).get("content")))


def of_completion(choice: Mapping[str, Any]) -> list[TokenLogprob]:
    """Those of a choice of `/v1/completions`: lists side by side."""
    said = expect_type(dict, choice.get("logprobs")) or {}
    found, names, tops = (expect_few(said.get(key)) for key in ("token_logprobs", "tokens", "top_logprobs"))
    rows = zip_longest(found, names[: len(found)], tops[: len(found)])
    return [
        TokenLogprob(_token(name), number(value), _likeliest((expect_type(dict, top) or {}).items()))
        for value, name, top in rows
        if _is_number(value)
    ]


def of_llama_cpp(chunk: Chunk) -> list[TokenLogprob]:
    """Those of a chunk of llama.cpp's `/completion`."""
    return _placed(expect_few(chunk.get("completion_probabilities")))


def number(value: Any) -> float:
    """A log-probability, from LEAST_LOGPROB to 0. Raises TypeError."""
    if type(value) not in (float, int):
        raise TypeError("a number is expected")
    # Bounded before it becomes a float: a whole number in JSON may be too large for one.
    return float(min(max(value, LEAST_LOGPROB), 0))


def _placed(places: Iterable[Any]) -> list[TokenLogprob]:
    known = [place for place in places if _is_number(expect_type(dict, place).get("logprob"))]
    return [
        TokenLogprob(
            _token(place.get("token")),
            number(place["logprob"]),
            _likeliest((top.get("token"), top.get("logprob")) for top in expect_few(place.get("top_logprobs"))),
        )
        for place in known
    ]


def _likeliest(named: Iterable[tuple[Any, Any]]) -> Top:
    found = [(_token(token), number(value)) for token, value in named if _is_number(value)]
    return tuple(sorted(found, key=lambda one: -one[1]))


def _token(value: Any) -> str:
    return whole((expect_type(str, value) or "")[:LONGEST_TOKEN])


def _is_number(value: Any) -> bool:
    """Whether an engine has said one; NaN differs from itself. Raises TypeError where it is something else."""
    return value is not None and value == value
