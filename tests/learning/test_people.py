"""What people are asked about the evidence, and how their replies come into it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from router.cli import label
from router.errors import OutcomeFileError
from router.learning import people, store
from router.learning.evidence import PEOPLE
from router.learning.people import Open
from router.learning.question import Question
from router.learning.store import EvidenceFile
from tests.learning.test_evidence import evidence

ANSWERS = ("four", "5", "4")


def kept(asked: str = "2 + 2 =", answers: tuple[str, ...] = ANSWERS) -> str:
    return json.dumps({"messages": [{"role": "user", "content": asked}], "answers": answers})


def written(folder: Path, *pieces: object) -> Path:
    file = EvidenceFile(folder)
    file.add(pieces)  # type: ignore[arg-type]
    file.close()
    return folder


def losses(folder: Path) -> dict[str, tuple[float, ...]]:
    return {one.decision_id: one.losses() for _, one in store.read(folder)}


def reply(about: Open, right: object) -> Question:
    return replace(about.question, right=right)


def name_of(about: Open, answer: str) -> str:
    return next(name for name, text in about.question.answers.items() if text == answer)


def test_a_question_has_both_answers_in_an_order_that_their_rungs_do_not_give(tmp_path: Path) -> None:
    pieces = [evidence(f"d{i}", kept=kept(f"{i} + 2 =", ("a", "b", "b"))) for i in range(40)]
    found = people.queue(written(tmp_path, *pieces)).questions
    served = [name_of(one, "b") for one in found]
    assert {"A", "B"} == set(served) and 8 < served.count("A") < 32
    assert [one.question.prompt for one in found] == [f"{i} + 2 =" for i in reversed(range(40))], "the newest first"


@pytest.mark.parametrize(
    ("right", "loss"),
    [("served", 1.0), ("other", 0.0), ("both", 0.0), ("neither", 0.0), ({"served": 0.75, "other": 0.5}, 0.25)],
)
def test_what_people_say_bounds_the_loss(tmp_path: Path, right: object, loss: float) -> None:
    (about,) = people.queue(written(tmp_path, evidence(kept=kept()))).questions
    names = {"served": name_of(about, "4"), "other": name_of(about, "four")}
    said = (
        {names[who]: share for who, share in right.items()} if isinstance(right, dict) else names.get(str(right), right)
    )
    people.keep(tmp_path, about, reply(about, said))
    assert losses(tmp_path) == {"d1": (loss, 0.0, 0.0)}
    assert [one.judge for _, one in store.read(tmp_path)] == [PEOPLE]
    assert not people.queue(tmp_path).questions


def test_the_same_question_is_asked_once_and_its_reply_counts_everywhere(tmp_path: Path) -> None:
    nowhere = (False, False, True)
    pieces = [
        evidence("d1", kept=kept()),
        evidence("d2", kept=kept(answers=("5", "four", "4")), same=nowhere),
        evidence("d3", kept=kept(answers=("four", "four", "4")), same=nowhere),
    ]
    first, second = people.queue(written(tmp_path, *pieces)).questions
    assert {first.other, second.other} == {"four", "5"}
    four = first if first.other == "four" else second
    people.keep(tmp_path, four, reply(four, "both"))
    assert losses(tmp_path) == {"d1": (0, 0, 0), "d2": (1, 0, 0), "d3": (0, 0, 0)}
    (left,) = people.queue(tmp_path).questions
    people.keep(tmp_path, left, reply(left, name_of(left, "4")))
    assert losses(tmp_path)["d2"] == (1, 0, 0), "what was said of one answer stays when another one is judged"
    assert not people.queue(tmp_path).questions


def test_nobody_is_asked_about_what_is_known(tmp_path: Path) -> None:
    known = [
        evidence("reported", kept=kept(), reported=0.0),
        evidence("same", kept=kept(), same=(True, True, True)),
        evidence("judged", kept=kept(), judge="judge", judged=(None, None, 1.0)),
        evidence("verified", kept=kept(), judge="verifier", judged=(0.0, None, 1.0)),
        evidence("cut off alike", kept=kept(answers=("4", "4", "4"))),
    ]
    assert not people.queue(written(tmp_path, *known)).questions


def test_a_model_s_verdict_is_not_mixed_with_that_of_people(tmp_path: Path) -> None:
    (about,) = people.queue(written(tmp_path, evidence(kept=kept()))).questions
    other = written(tmp_path / "other", evidence(kept=kept(), judge="judge", judged=(0.0, None, 1.0)))
    people.keep(other, about, reply(about, "both"))
    assert losses(other) == {"d1": (1.0, 0.0, 0.0)}


def test_evidence_without_texts_is_counted(tmp_path: Path) -> None:
    found = people.queue(written(tmp_path, evidence("d1"), evidence("d2", kept=kept())))
    assert (found.pieces, found.kept, len(found.questions)) == (2, 1, 1)


def test_texts_that_are_damaged_are_named(tmp_path: Path) -> None:
    for i, text in enumerate(("{", "[]", '{"messages": []}', kept(answers=("4",)))):
        with pytest.raises(OutcomeFileError, match=r"evidence.sqlite: evidence of d1"):
            people.queue(written(tmp_path / str(i), evidence(kept=text)))


def test_a_conversation_is_asked_as_a_whole(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "2 + 2 ="}, {"role": "assistant", "content": "4"}]
    turns.append({"role": "user", "content": "and 3 more?"})
    text = json.dumps({"messages": turns, "answers": ANSWERS})
    (about,) = people.queue(written(tmp_path, evidence(kept=text))).questions
    assert about.question.messages is not None and len(about.question.messages) == 3
    line = Question.parsed(reply(about, "both").to_json())
    assert people.queue(tmp_path).about(line) == about


def keys(*typed: str) -> Callable[[], str]:
    left = iter(typed)
    return lambda: next(left, "")


def test_each_key_is_kept_at_once_and_nothing_else_is(tmp_path: Path) -> None:
    pieces = [evidence(f"d{i}", kept=kept(f"{i} + 2 =")) for i in range(6)]
    wanted = people.queue(written(tmp_path, *pieces)).questions
    kept_now: list[str] = []

    def keep(about: Open, answered: Question) -> None:
        people.keep(tmp_path, about, answered)
        kept_now.append(about.question.prompt)

    assert label.asked(wanted, keys("x", "s", "\x1b[A", "ab", "a", "B", "2", "0"), keep) == 4
    assert kept_now == [f"{i} + 2 =" for i in (4, 3, 2, 1)], "the first is skipped, and the last is left at the end"
    assert [one.question.prompt for one in people.queue(tmp_path).questions] == ["5 + 2 =", "0 + 2 ="]
    again = people.queue(tmp_path).questions
    assert label.asked(again, keys("q"), keep) == 0 == label.asked(again, keys("\x03"), keep)
