"""What a long text asks is found wherever it stands, in time proportional to the length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bundle.asking import MOST, REACH, WHOLE, asked
from tests.support.turns import steps_of

PROSE = "The committee met on a grey morning, and nobody spoke of the harbour. " * 260
LINES = "".join(f"2024-03-{day % 28 + 1:02} INFO turbine[{day}]: measured in {day * 7} ms\n" for day in range(400))
CODE = "".join(f"    value_{i} = read(path_{i})\n    if value_{i} > {i}:\n        return None\n" for i in range(280))
TABLE = "".join(f"| harbour {i} | {i * 13} | open |\n" for i in range(600))
JSON = str([{"id": i, "name": f"harbour {i * 13}", "asks": "What is this?"} for i in range(300)])
DOCUMENTS = {"prose": PROSE, "lines": LINES, "code": CODE, "table": TABLE, "JSON in one line": JSON}

QUESTIONS = {
    "a sum": "2+2",
    "a sum in words": "What is 2 + 2?",
    "a proof": "Prove that every finite integral domain is a field.",
    "German": "Beweise, dass es unendlich viele Primzahlen gibt.",
    "Chinese": "请证明根号二是无理数。",
    "Spanish": "¿Cuántos días tiene un año bisiesto?",
    "a task behind a colon": "My task for you: sort the names of the harbours by length.",
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS.keys())
@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_a_question_is_found_before_behind_and_between_documents(document: str, question: str) -> None:
    assert len(document) > 15_000
    for text in (f"{document}\n\n{question}", f"{question}\n\n{document}", f"{document}\n\n{question}\n\n{document}"):
        found = asked(text)
        assert question in found and len(found) < len(question) + WHOLE


def test_what_a_question_is_about_comes_with_it() -> None:
    numbers = "['14', '-3', '77', '12']"
    found = asked(
        f"{PROSE}\nRemove all numbers larger than 13 in this list:\n{numbers}\nReturn the new list.\n\n{PROSE}"
    )
    assert found == f"Remove all numbers larger than 13 in this list:\n{numbers}\nReturn the new list."


def test_a_question_among_others_of_one_form_is_none_of_them() -> None:
    catalogue = "".join(f"Q: What happens to the {i}th ship?\nA: It sails at {i}.\n" for i in range(200))
    assert asked(f"{catalogue}\nWhy do ships float?") == "Why do ships float?"


@given(st.text(max_size=WHOLE))
def test_a_short_text_is_read_whole(text: str) -> None:
    assert asked(text) == text


@given(st.lists(st.sampled_from(["a. ", "b?\n", "1+1", "\n", " ", "é", "中", "x" * 300, "if: ", "    {"]), min_size=1))
def test_never_more_is_read_than_fits(pieces: list[str]) -> None:
    assert len(asked("".join(pieces) * 50)) <= MOST


def test_beyond_its_reach_nothing_is_looked_at() -> None:
    ends = "w " * (REACH // 2)
    assert asked(f"{ends}{'z' * 100_000}{ends}") == asked(f"{ends}What is 2 + 2?{'z' * 100_000}{ends}")


@pytest.mark.parametrize("unit", ["a\n", "a. ", "b?\n", "{}?\n", "{} what: 1+1\n", "é中 ", "\u0300\u0316"])
def test_twice_the_text_takes_twice_the_steps(unit: str) -> None:
    def steps(characters: int) -> float:
        text = "".join([unit.format(chr(0x4E00 + i % 20_000)) for i in range(characters // len(unit))])
        return steps_of(lambda: asked(text), tries=2)

    assert steps(32_000) <= 2.5 * steps(16_000) + 5_000
    assert steps(8 * REACH) <= 3 * steps(2 * REACH) + 10_000
