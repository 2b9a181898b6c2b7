"""Text of engines, made fit to pass on."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.backends.text import BLANK, LONGEST_NAME, SurrogateJoiner, loads, printable_name, whole

HALVES = st.text(st.sampled_from("aü\ud83d\ude00\ud800\udfff\N{GRINNING FACE}"), max_size=10)


@given(HALVES, st.lists(st.integers(0, 100), max_size=10))
def test_halves_are_joined_or_replaced_however_they_are_cut(text: str, cuts: list[int]) -> None:
    joiner = SurrogateJoiner()
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    joined = "".join(joiner.join(text[first:last]) for first, last in pairwise(places)) + joiner.rest()
    assert joined == whole(text)
    joined.encode()


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**70), 2**70) | HALVES, st.lists))
def test_any_json_is_read(value: object) -> None:
    found = loads(json.dumps(value).encode())
    assert json.dumps(found) == json.dumps(value) or isinstance(value, int | list)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"NaN", b"[" * 100_000, b"\xff", b'{"a": Infinity}', b"9" * 100_000 + b"x"]
)
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(data)


SHOWS_NOTHING = (
    "\x00\t\x85\xa0\xad\u034f\u115f\u1160\u17b4\u180b\u180e\u200b\u200d\u2028\u202e\u2060\u206f\u2800\u3000\u3164"
    "\ufe0f\ufeff\uffa0\ufff9\U0001bca0\U0001d173\U000e0001\U000e0020\U000e0100"
)


@pytest.mark.parametrize("code", [ord(character) for character in SHOWS_NOTHING])
def test_what_shows_nothing_is_blank(code: int) -> None:
    assert not chr(code).strip(BLANK)


@given(st.characters(categories=["L", "N", "P", "S"]))
def test_what_shows_something_is_not(character: str) -> None:
    unseen = "\u115f\u1160\u3164\uffa0\u2800"  # fillers, which count as letters, and a pattern without dots
    assert character.strip(BLANK) or character in unseen


@pytest.mark.parametrize("given", ["1.0", "\ud800", "a\nb\x00", "x" * 10_000, None, {"a": 1}, 3])
def test_a_name_is_short_and_has_no_control_characters(given: object) -> None:
    found = printable_name(given)
    found.encode()
    assert found.isprintable() and len(found) <= LONGEST_NAME
