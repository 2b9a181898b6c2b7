"""Model inputs are finite, fixed in width, and depend on the prompt alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import artifact, features
from router.domain import Message, Prompt, Role
from router.features import MAX_CHARACTERS, NAMES, WIDTH, Featurizer, extract
from tests.conftest import MODELS

text = st.text(st.characters(exclude_categories=["Cs"]))


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


@given(st.lists(text, min_size=1, max_size=5))
def test_a_prompt_is_seen_alike_alone_and_in_a_batch(texts: list[str]) -> None:
    prompts = [Prompt.of(t) for t in texts]
    np.testing.assert_array_equal(extract(prompts), np.vstack([extract([prompt]) for prompt in prompts]))


@given(text)
def test_beyond_the_limit_nothing_is_read(extra: str) -> None:
    base = "word 1 " * (MAX_CHARACTERS // 7 + 1)
    np.testing.assert_array_equal(extract([Prompt.of(base)]), extract([Prompt.of(base + extra)]))


def test_a_long_prompt_is_scored_quickly_enough_to_hold_up_nobody() -> None:
    assert column(Prompt.of("9" * 10_000_000), "characters") == pytest.approx(MAX_CHARACTERS, rel=1e-4)


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


def test_words_are_seen_whatever_their_case() -> None:
    hashed = slice(WIDTH - features.WORD_BUCKETS, WIDTH)
    lower, upper = extract([Prompt.of("solve it"), Prompt.of("SOLVE It")])
    np.testing.assert_array_equal(lower[hashed], upper[hashed])
    assert lower[hashed].any()


def test_names_are_distinct_and_cover_every_column() -> None:
    assert len(set(NAMES)) == len(NAMES) == extract([Prompt.of("x")]).shape[1]


def test_the_same_text_typed_otherwise_is_the_same() -> None:
    composed, decomposed = Prompt.of("Élève"), Prompt.of("E\u0301le\u0300ve")
    assert composed != decomposed
    assert (extract([composed]) == extract([decomposed])).all()


@pytest.fixture(scope="module")
def featurizer() -> Featurizer:
    bundle = artifact.load(MODELS / "pocket-router")
    return Featurizer(bundle.tokenizer, bundle.manifest.max_tokens)


pieces = st.sampled_from(["a", "seven", " ", "  ", "\n", "\t", "▁", "é", "漢", "🎉", "<s>", "'", "12", "don't"])


@given(text | st.lists(pieces).map("".join) | st.lists(pieces).map(" ".join))
def test_words_give_the_same_tokens_as_the_whole_text(featurizer: Featurizer, given: str) -> None:
    assert featurizer.tokens([Prompt.of(given)]) == [whole(featurizer, given)]


def test_a_long_text_is_cut_where_the_tokenizer_would(featurizer: Featurizer) -> None:
    long = "how many ways are there " * 300
    assert featurizer.tokens([Prompt.of(long.strip())]) == [whole(featurizer, long.strip())]
    assert len(whole(featurizer, long.strip())) == 512


def whole(featurizer: Featurizer, text: str) -> list[int]:
    """What the tokenizer makes of a text in one go."""
    said = features.scored_text(Prompt.of(text))
    ids: list[int] = featurizer._tokenizer.encode(said, add_special_tokens=featurizer._special).ids
    return ids


def test_callers_can_not_fill_the_memory_with_words(featurizer: Featurizer) -> None:
    words = featurizer._words
    assert words is not None
    memories = words._word, features._remembered_bucket
    before = [memory.cache_info().currsize for memory in memories]
    featurizer([Prompt.of(" ".join(f"{letter * 5_000}" for letter in "abc"))])
    assert [memory.cache_info().currsize for memory in memories] == before
    assert all(memory.cache_info().maxsize == features.REMEMBERED_WORDS for memory in memories)
