"""Labels without right answers: what the top rung answers counts as right."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from router.domain import Certificate, Sampling
from training.certification.certify import Proofs
from training.collect.questions import Question, from_file
from training.collect.recipes import POCKET, parse_ladder
from training.collect.rows import labels
from training.collect.run import collect, local, units
from training.collect.units import FAILED, Answer, Pocket, Recipe
from training.data.dataset import read
from training.evaluation.advice import about_agreement

QUESTION = Question("2 + 2 =", "", None, "g", "agreement", {})
RECIPE = Recipe(Pocket(POCKET), "pocket/x/native", parse_ladder("0,16"), 1, Sampling(0, 16), 2, nested=True)


def whole(text: str) -> Answer:
    return Answer(text, 5, 1, "natural")


CUT = Answer("4", 5, 1, "truncated")


@pytest.mark.parametrize(
    ("scorer", "answers", "expected"),
    [
        ("agreement", [whole(" THE  end "), whole("another"), whole("The end")], [1, 0, 1]),
        ("agreement", [whole("It is 4."), whole("4")], [0, 1]),
        ("agreement-numeric", [whole("It is 4."), whole("5"), whole("4")], [1, 0, 1]),
        ("agreement-numeric", [whole("none"), whole("it is 4"), whole("None")], [1, 0, 1]),
        ("agreement-math", [whole("$\\frac{1}{2}$"), whole("0.25"), whole("0.5")], [1, 0, 1]),
        ("agreement", [CUT, whole("4")], [0, 1]),
        ("agreement", [whole("4"), CUT, CUT], [0, 1, 1]),
    ],
)
def test_an_answer_is_right_if_it_is_the_top_rungs(scorer: str, answers: list[Answer], expected: list[int]) -> None:
    assert [correct for correct, _ in labels(replace(QUESTION, scorer=scorer), answers)] == expected


def test_without_an_answer_of_the_top_rung_there_is_no_label() -> None:
    assert labels(QUESTION, [whole("4"), FAILED]) == [(0.0, "error")] * 2
    assert labels(QUESTION, [FAILED, whole("4")]) == [(0.0, "error"), (1.0, "natural")]


def test_the_file_says_that_its_labels_are_agreement(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "2 + 2 ="}\n{"prompt": "3 + 4 ="}\n')
    questions = from_file(prompts, "agreement")
    for name, recipe in {"nested": RECIPE, "anew": replace(RECIPE, sampling=Sampling(0.5, 16, 7), samples=2)}.items():
        assert {unit.rung for unit in units(questions, recipe)} == {None}
        collect(questions, recipe, tmp_path / name, local)
        rows, outcomes = pl.read_parquet(tmp_path / name), read(tmp_path / name)
        assert set(rows["label_source"]) == {"agreement"} and outcomes.label_sources == ("agreement",)
        assert outcomes.correct[:, -1].tolist() == [1, 1] and len(rows) == 4 * recipe.samples
        assert rows["trace_id"].null_count() == (0 if recipe.nested else len(rows))


def test_no_absolute_target_is_certified_by_agreement() -> None:
    proved = Proofs((), (Certificate(0.1, 0.1, 0.9, 100),), {})
    assert about_agreement(proved, ("verifier",)) == proved
    told = about_agreement(proved, ("agreement", "verifier"))
    assert told.absolute == () and "not what is right" in told.refused["quality of at least 0.9"]
