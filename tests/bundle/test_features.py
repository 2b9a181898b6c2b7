"""Model inputs are finite, fixed in width, and depend on the prompt alone."""

import re
from unicodedata import normalize
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.bundle import features
from router.bundle.asking import MOST, REACH
from router.bundle.features import NAMES, WIDTH, extract
from router.bundle.text_arrays import MOST as MOST_AT_ONCE
from router.bundle.text_counts import WORD_BUCKETS
from router.domain import Message, Prompt, Role

text = st.text(st.characters(exclude_categories=["Cs"]))
ascii_text = st.text(st.characters(max_codepoint=127))
words = [
    *(word * n for word, n in (("w", 63), ("W", 64), ("x", 65), ("x", 200))),
    "a",
    "A",
    "aa",
    "word",
    "Word",
    "don't",
]
others = [" ", "\n", "\0", "12", "3.5", "+", "$x$", "é", "漢字", "🎉", "\ud800", "٣", "ß", "“", "—", "Ⓐ", "²"]
piece = st.sampled_from([*words, *others])
said = ascii_text | text | st.lists(piece).map("".join) | st.lists(piece).map(" ".join)
talk = st.lists(st.builds(Message, st.sampled_from(Role), said), min_size=1, max_size=3).map(tuple).map(Prompt)
prompts = said.map(Prompt.of) | talk
"""Texts and conversations, empty, long, and with halves of surrogate pairs among them."""


def column(prompt: Prompt, name: str) -> float:
    """The count behind a column."""
    return float(np.expm1(extract([prompt])[0, NAMES.index(name)]))


@given(st.lists(text, max_size=5))
def test_every_text_gives_finite_numbers_of_one_width(texts: list[str]) -> None:
    matrix = extract([Prompt.of(t) for t in texts])
    assert matrix.shape == (len(texts), WIDTH)
    assert matrix.dtype == np.float32
    assert np.isfinite(matrix).all()
    assert (matrix >= 0).all()


@given(st.lists(prompts, min_size=1, max_size=5))
def test_a_prompt_is_seen_alike_alone_and_in_a_batch(prompts: list[Prompt]) -> None:
    assert_alike_alone_and_together(prompts)


@settings(max_examples=50)
@given(st.lists(prompts, min_size=features.FEW + 1, max_size=features.FEW + 4))
def test_a_prompt_is_seen_alike_alone_and_in_arrays(prompts: list[Prompt]) -> None:
    assert_alike_alone_and_together(prompts)


def test_more_prompts_than_fit_the_arrays_are_seen_as_alone() -> None:
    assert_alike_alone_and_together([Prompt.of(f"{n} Words in {n * n} wordS") for n in range(3 * MOST_AT_ONCE + 1)])


def assert_alike_alone_and_together(prompts: list[Prompt]) -> None:
    alone = np.vstack([extract([prompt]) for prompt in prompts])
    assert extract(prompts).tobytes() == alone.tobytes()


@given(text | st.text(st.characters(max_codepoint=127)))
def test_words_and_numbers_are_those_of_unicode(said: str) -> None:
    said = normalize("NFC", said)
    words, numbers = re.findall(r"[^\W\d_]+", said), re.findall(r"\d+", said)
    expected = [len(words), len(set(words)), len(numbers), sum(map(len, numbers)), sum(map(str.isupper, said))]
    names = ("words", "distinct words", "numbers", "digits", "capital letters")
    assert [round(column(Prompt.of(said), name)) for name in names] == expected
    assert round(column(Prompt.of(said), "longest word")) == max(map(len, words), default=0)
    assert round(column(Prompt.of(said), "longest number")) == max(map(len, numbers), default=0)
    buckets = {crc32(word.lower().encode()) % WORD_BUCKETS for word in words}
    assert set(np.flatnonzero(extract([Prompt.of(said)])[0, features.HAND :])) == buckets


def test_beyond_its_reach_a_text_is_counted_and_not_read() -> None:
    head, tail = "word 1 " * (REACH // 7 + 1), " 2 words" * (REACH // 8 + 1)
    one, other = (Prompt.of(f"{head}{extra}{tail}") for extra in ("x" * 9, "What is 2 + 2?" + "y" * 9))
    counted = NAMES.index("characters around the text")
    first, second = (np.delete(extract([prompt]), counted, axis=1) for prompt in (one, other))
    np.testing.assert_array_equal(first, second)


def test_a_long_prompt_is_scored_quickly_enough_to_hold_up_nobody() -> None:
    assert column(Prompt.of("9" * 10_000_000), "characters") <= MOST


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("characters", 22),
        ("words", 4),
        ("distinct words", 4),
        ("longest word", 4),
        ("numbers", 2),
        ("digits", 4),
        ("longest number", 3),
        ("capital letters", 2),
        ("messages", 1),
        ("scripts", 0),
        ("count of '+'", 1),
        ("count of '?'", 1),
        ("count of '*'", 0),
    ],
)
def test_columns_count_what_they_are_named_after(name: str, count: int) -> None:
    assert column(Prompt.of("What is the Sum? 1+234"), name) == pytest.approx(count, rel=1e-5)


def test_the_last_user_message_is_what_is_scored() -> None:
    turns = (Message(Role.USER, "7 7 7"), Message(Role.USER, "8"), Message(Role.ASSISTANT, "9 9"))
    assert column(Prompt(turns), "numbers") == pytest.approx(1)
    assert column(Prompt(turns), "messages") == pytest.approx(3)


def test_without_a_user_message_the_last_one_is_scored() -> None:
    assert column(Prompt((Message(Role.SYSTEM, "1"), Message(Role.TOOL, "2 3"))), "numbers") == pytest.approx(2)


def test_scripts_beyond_ascii_are_counted() -> None:
    assert round(column(Prompt.of("Привет, мир! 你好 é"), "scripts")) == 3


def test_words_are_seen_whatever_their_case() -> None:
    hashed = slice(WIDTH - WORD_BUCKETS, WIDTH)
    lower, upper = extract([Prompt.of("solve it"), Prompt.of("SOLVE It")])
    np.testing.assert_array_equal(lower[hashed], upper[hashed])
    assert lower[hashed].any()


def test_names_are_distinct_and_cover_every_column() -> None:
    assert len(set(NAMES)) == len(NAMES) == extract([Prompt.of("x")]).shape[1]


def test_the_same_text_typed_otherwise_is_the_same() -> None:
    composed, decomposed = Prompt.of("Élève"), Prompt.of("E\u0301le\u0300ve")
    assert composed != decomposed
    assert (extract([composed]) == extract([decomposed])).all()
