"""What the graph reads is the same, whether a text is read in one go or put together of pieces seen before."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bundle import manifest
from router.bundle.featurizer import Featurizer
from router.bundle.token_cache import Ids, Pieces, packed
from router.domain import Prompt
from tests.conftest import MODELS

text = st.text(st.characters(exclude_categories=["Cs"]))
piece = st.sampled_from(
    ["a", "seven", "Seven,", " ", "  ", "\n", "\t", "▁", "é", "漢", "🎉", "<s>", "'", "12", "don't", "2+2=4?", "x" * 40]
)
MOST = 512
"""Tokens that the shipped bundle's graph reads."""

texts = text | st.lists(piece).map("".join) | st.lists(piece).map(" ".join)


@pytest.fixture(scope="module")
def featurizer() -> Featurizer:
    bundle = manifest.load(MODELS / "pocket-router")
    return Featurizer(bundle.tokenizer, bundle.manifest.max_tokens)


@given(st.lists(texts, min_size=1, max_size=4))
def test_pieces_give_the_same_tokens_as_the_whole_text(featurizer: Featurizer, given: list[str]) -> None:
    prompts = [Prompt.of(one) for one in given]
    expected = featurizer.padded(featurizer.tokens(prompts))
    np.testing.assert_array_equal(featurizer(prompts)["tokens"], expected)


def test_pieces_are_remembered_as_they_are_read(featurizer: Featurizer) -> None:
    known = Pieces.of(featurizer._tokenizer)
    assert known is not None
    read = known.tokens("how many ways, 12 of 7?", MOST)
    assert [read] == [packed(ids) for ids in featurizer.tokens([Prompt.of("how many ways, 12 of 7?")])]
    assert len(known._ids) == 6
    again = known.tokens("how many how many", MOST)
    assert [again] == [packed(ids) for ids in featurizer.tokens([Prompt.of("how many how many")])]
    assert len(known._ids) == 6


def test_what_is_not_its_pieces_is_read_in_one_go(featurizer: Featurizer) -> None:
    known = Pieces(featurizer._tokenizer)
    for text in ("two  spaces", "<s> special", "", " ", "a▁b"):
        assert known.tokens(text, MOST) is None
    assert len(known._ids) == 0


def test_half_a_surrogate_pair_leaves_the_memory_as_it_was(featurizer: Featurizer) -> None:
    assert featurizer._pieces is not None
    prompts = [Prompt.of("extraordinarily quick foxes")]
    expected, remembered = featurizer(prompts)["tokens"].tolist(), len(featurizer._pieces._ids)
    with pytest.raises(UnicodeEncodeError):
        featurizer([Prompt.of("\ud800word")])
    assert len(featurizer._pieces._ids) == remembered
    assert featurizer(prompts)["tokens"].tolist() == expected == featurizer.tokens(prompts)


def test_a_long_text_is_cut_where_the_tokenizer_would(featurizer: Featurizer) -> None:
    prompt = Prompt.of(("a b " * 256).strip())
    assert featurizer([prompt])["tokens"].tolist() == featurizer.tokens([prompt])
    assert len(featurizer.tokens([prompt])[0]) == 512


def test_callers_cannot_fill_the_memory(featurizer: Featurizer) -> None:
    known = Pieces(featurizer._tokenizer, most=10)
    for text in ["x" * 300, *(f"is {number} more than {number + 1} ?" for number in range(100))]:
        assert [known.tokens(text, MOST)] == list(map(packed, featurizer.tokens([Prompt.of(text)])))
        assert len(known._ids) <= 10
    assert "x" * 300 not in known._ids


def test_threads_that_read_the_same_pieces_agree(featurizer: Featurizer) -> None:
    known = Pieces(featurizer._tokenizer, most=100)
    said = [f"{number} ways and {number * 7} more" for number in range(500)]
    found: list[list[Ids | None]] = [[] for _ in range(4)]

    def read(out: list[Ids | None]) -> None:
        out.extend(known.tokens(one, MOST) for one in said)

    threads = [threading.Thread(target=read, args=[out]) for out in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [packed(featurizer.tokens([Prompt.of(one)])[0]) for one in said]
    assert found == [expected] * 4
    assert len(known._ids) <= 100
