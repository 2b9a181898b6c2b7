"""The families: chains that reach the verifier's answer, a stable held-out share, a closed vocabulary."""

import re
from functools import cache
from itertools import islice

import pytest

from training.pocket.tasks import FAMILIES, HELD_OUT_SHARE, LEVELS, Family, Item, held_out, items, verify
from training.pocket.tokenizer import END, END_THINK, SPECIAL, START, THINK, UNKNOWN, build

PER_LEVEL = 15
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@cache
def some(family: Family) -> list[Item]:
    """Items of every level."""
    return [item for level in range(LEVELS) for item in islice(items(family, level, 7), PER_LEVEL)]


def concluded(item: Item) -> str:
    """The answer that the chain's last step leads to, written as the family writes answers."""
    chain = item.chain
    match item.family:
        case "chain_sum" | "leg_counting" | "products":
            return chain.rpartition("=")[2]
        case "count_bits":
            return chain.rpartition(":")[2]
        case "letter_counting":
            return chain.split()[-1].removeprefix(item.entry["metadata"]["span"][-1])
        case "spell_backward":
            return re.sub(r"\d+", "", chain)[::-1]
        case "ab":
            return " ".join(re.findall(r"[AB]#|#[AB]", chain.rpartition(";")[2]))
        case "number_filtering":
            return str([step[:-1] for step in chain.split() if step.endswith("y")])
        case "number_sorting":
            return str([f"{number}.0" for number in chain.rpartition(";")[2].split()])
        case "complex_arithmetic":
            real, imaginary = (int(step.rpartition("=")[2]) for step in chain.split(";"))
            return f"{real}.0 {'-' if imaginary < 0 else '+'} {abs(imaginary)}.0i"
    raise AssertionError(f"nothing is known of {item.family}")


@every_family
def test_a_chain_ends_at_an_answer_that_the_verifier_accepts(family: Family) -> None:
    for item in some(family):
        if item.family == "letter_counting":  # "71" may be the word "7" and the count 1
            assert concluded(item).endswith(item.answer), item
        else:
            assert verify(item, concluded(item)), item


@every_family
def test_the_verifier_accepts_the_familys_own_answer(family: Family) -> None:
    assert all(verify(item, item.answer) for item in some(family))


@every_family
def test_the_verifier_refuses_nonsense(family: Family) -> None:
    stated = (item for item in some(family) if item.answer)  # the verifier of `ab` takes all for an empty answer
    for item in islice(stated, 10):
        for answer in ("no idea", f"{item.answer}1x"):
            assert not verify(item, answer)


@every_family
def test_harder_levels_have_longer_chains(family: Family) -> None:
    lengths = [sum(len(i.chain) for i in islice(items(family, level, 7), 30)) for level in (0, LEVELS - 1)]
    assert lengths[0] < lengths[1] or family.name == "complex_arithmetic"


def test_items_repeat_for_a_seed_and_differ_between_seeds() -> None:
    def questions(seed: int) -> list[str]:
        return [item.question for item in islice(items(FAMILIES[0], 3, seed), 10)]

    assert questions(1) == questions(1)
    assert set(questions(1)).isdisjoint(questions(2))


def test_the_held_out_part_is_stable_for_ever() -> None:
    assert [held_out(f"question {i}") for i in range(8)] == [True, True, False, False, False, False, False, False]


def test_about_the_stated_share_is_held_out() -> None:
    share = sum(held_out(f"question {i}") for i in range(10_000)) / 10_000
    assert share == pytest.approx(HELD_OUT_SHARE, abs=0.02)


@every_family
def test_every_level_has_held_out_questions(family: Family) -> None:
    for level in range(LEVELS):
        assert any(held_out(item.question) for item in islice(items(family, level, 3), 100))


@every_family
def test_questions_chains_and_answers_are_in_the_vocabulary(family: Family) -> None:
    tokenizer = build()
    unknown = tokenizer.token_to_id(UNKNOWN)
    for item in some(family):
        for text in (item.question, item.chain, item.answer):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert unknown not in ids, item
            assert tokenizer.decode(ids) == text


@every_family
def test_fixed_phrases_are_single_tokens(family: Family) -> None:
    tokenizer = build()
    for item in some(family)[:5]:
        assert len(tokenizer.encode(item.question, add_special_tokens=False).ids) < 0.8 * len(item.question)


def test_special_tokens_are_known_and_distinct() -> None:
    tokenizer = build()
    ids = {tokenizer.token_to_id(word) for word in (START, END, THINK, END_THINK, UNKNOWN)}
    assert None not in ids and len(ids) == 5 <= len(SPECIAL)


def test_what_is_not_in_the_vocabulary_becomes_unknown() -> None:
    tokenizer = build()
    assert tokenizer.encode("漢", add_special_tokens=False).ids == [tokenizer.token_to_id(UNKNOWN)]
