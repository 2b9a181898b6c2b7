"""The normal form of ordinary text is Unicode's own; no text takes the square of its length."""

import sys
from unicodedata import combining, normalize

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from router.bundle import normal_form as module
from router.bundle.featurizer import Featurizer
from router.bundle.manifest import Bundle
from router.bundle.normal_form import JOINER, LONGEST_RUN, SHORT, normal_form
from router.domain import Prompt
from router.scoring.cache_key import ScoreKeys
from tests.support.fakes import LADDER
from tests.support.turns import steps_of

MARKS = "\u0300\u0316"
text = st.text(st.characters(exclude_categories=["Cs"]))
mark = st.sampled_from("\u0300\u0301\u0316\u0345\u05b0\u0323\U0001d165")
marked = st.tuples(st.sampled_from("aeW中 \u1100"), st.text(mark, max_size=LONGEST_RUN)).map("".join)
unusual = st.sampled_from(
    "a \n.é\u0301\u0316\u0345\u034f\u1100\u1161\u11a8\u0958\ufb2c\U0001d160Σʰ中\u2003😀\u200d\ufdfa▁\0"
)


@given(st.lists(text | marked).map("".join), st.integers(1, 60))
def test_ordinary_text_gets_its_own_normal_form(said: str, times: int) -> None:
    repeated = f"{said}x" * times  # behind a letter, so that no run goes on from one to the next
    runs = "".join("m" if combining(c) else " " for c in normalize("NFD", repeated)).split()
    assume(len(repeated) <= SHORT or max(map(len, runs), default=0) <= LONGEST_RUN)
    assert normal_form(repeated) == normalize("NFC", repeated)
    assert normal_form(normalize("NFD", repeated)) == normal_form(repeated)


@pytest.mark.parametrize("marks", [LONGEST_RUN, LONGEST_RUN + 1, 10_000])
def test_a_long_run_of_marks_is_broken_and_keeps_all_of_them(marks: int) -> None:
    said = "x" * SHORT + "q" + "\u0316" * marks + "y"
    normal = normal_form(said)
    assert normal.count(JOINER) == (marks - 1) // LONGEST_RUN
    assert normal.replace(JOINER, "") == said


def test_every_character_that_combines_is_known() -> None:
    combine = [code for code in range(sys.maxunicode + 1) if combining(chr(code))]
    assert module._MARKS_LIE_IN[0] <= combine[0] and combine[-1] <= module._MARKS_LIE_IN[-1]
    assert all(module._LONG_RUN.match(chr(code) * (LONGEST_RUN + 1)) for code in combine)
    assert not any(module._LONG_RUN.match(c * (LONGEST_RUN + 1)) for c in "aé中\u1161 \u200d")


@pytest.fixture(scope="module")
def featurizer(bundle: Bundle) -> Featurizer:
    return Featurizer(bundle.tokenizer, bundle.manifest.max_tokens)


@settings(max_examples=15)
@given(st.text(unusual, min_size=1, max_size=4))
@example("\u0300\u0316")
@example("\U0001d160")
def test_twice_the_text_takes_twice_the_steps(featurizer: Featurizer, unit: str) -> None:
    keys = ScoreKeys(b"secret", "version", LADDER)

    def steps(length: int) -> float:
        prompt = Prompt.of("a" + unit * (length // len(unit)))
        return steps_of(lambda: (keys.key("tenant", prompt), featurizer([prompt])))

    assert steps(16_000) <= 2.5 * steps(8_000) + 5_000
    # Beyond the part that is scored only bytes are hashed.
    assert steps(200_000) <= 2.5 * steps(16_000) + 10_000
