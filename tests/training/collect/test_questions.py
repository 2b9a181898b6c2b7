"""Where questions come from, and what is refused by line."""

import json
from pathlib import Path
from typing import Any

import click
import polars as pl
import pytest

from training.cli.collect import collect
from training.collect.questions import NAMES, Question, digest, from_file, from_gym, held_out_questions
from training.collect.scorers import SCORERS
from training.data.schema import DatasetError
from training.data.splits import prompt_id
from training.pocket.tasks import FAMILIES, LEVELS, held_out


def file_of(folder: Path, *lines: object) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_a_file_needs_prompt_and_answer_alone(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"prompt": "2 + 2 =", "answer": "4"}, "", {"prompt": "3 + 3 =", "answer": 6})
    one, two = from_file(path, "numeric")
    assert one == Question("2 + 2 =", "4", None, prompt_id("2 + 2 ="), "numeric", {})
    assert two.reference == "6"


def test_a_file_may_say_more(tmp_path: Path) -> None:
    told: dict[str, Any] = {"prompt": "a", "answer": "b", "task": "t", "group": "g", "scorer": "exact"}
    (question,) = from_file(file_of(tmp_path, told | {"metadata": {"tolerance": 0.1}}), "math")
    assert question == Question("a", "b", "t", "g", "exact", {"tolerance": 0.1})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is not JSON"),
        ("[1]", "line 2: is not a JSON object"),
        ({"answer": "b"}, "line 2: prompt is missing, and there are no messages"),
        ({"messages": [], "answer": "1"}, "line 2: messages: is not a list of messages"),
        ({"messages": [{"role": "x"}], "answer": "1"}, "line 2: messages[0].role: 'x' is none of system"),
        (
            {"prompt": "x", "messages": [{"role": "user", "content": "y"}], "answer": "1"},
            "line 2: prompt is not what the messages ask last",
        ),
        (
            {"messages": [{"role": "user", "content": "first"}], "answer": "2"},
            "line 2: has the prompt of line 1, and another answer",
        ),
        ({"prompt": "x"}, "line 2: answer is missing"),
        ({"prompt": "", "answer": "b"}, "line 2: prompt is not a non-empty string"),
        ({"prompt": 3, "answer": "b"}, "line 2: prompt is not a non-empty string"),
        ({"prompt": "x", "answer": "b", "group": None}, "line 2: group is not a non-empty string"),
        ({"prompt": "x", "answer": "b", "scorer": "gut"}, "line 2: unknown scorer 'gut'; the scorers are exact"),
        ({"prompt": "x", "answer": "b", "promt": "x"}, "line 2: unknown field 'promt'"),
        ({"prompt": "x", "answer": "four"}, "line 2: numeric cannot score it: the reference holds no number"),
        ({"prompt": "x", "scorer": "reasoning-gym"}, "line 2: reasoning-gym cannot score it: 'dataset'"),
        ({"prompt": "x", "answer": "1", "metadata": []}, "line 2: metadata is not an object"),
        ({"prompt": "first", "answer": "2"}, "line 2: has the prompt of line 1, and another answer"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    path = file_of(tmp_path, {"prompt": "first", "answer": "1"}, line)
    with pytest.raises(DatasetError, match=r"prompts\.jsonl") as caught:
        from_file(path, "numeric")
    assert message in str(caught.value)


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2 + 2 ="},
    {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "add", "arguments": "{}"}}]},
    {"role": "tool", "content": "", "tool_call_id": "1"},
]


def test_a_line_may_be_a_conversation(tmp_path: Path) -> None:
    bare = {"messages": [{"role": "user", "content": "2 + 2 ="}], "answer": "4"}
    one, two = from_file(file_of(tmp_path, {"messages": TURNS, "answer": "4"}, bare), "numeric")
    assert [message.role.value for message in one.asked.messages] == ["system", "user", "assistant", "tool"]
    assert one.prompt == two.prompt == "2 + 2 =" and one.group == one.identity != two.identity
    assert two == from_file(file_of(tmp_path, {"prompt": "2 + 2 =", "answer": "4"}), "numeric")[0]
    assert one.transcript == "system: Be brief.\n\nuser: 2 + 2 =\n\nassistant: [calls add({})]\n\ntool:"
    assert digest([one]) != digest([two])


@pytest.mark.parametrize("as_json", [True, False], ids=["JSON", "structs"])
def test_questions_may_come_in_parquet(tmp_path: Path, as_json: bool) -> None:
    turns = [
        {"role": "user", "content": "2 + 2 ="},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "Sure?"},
    ]
    metadata = {"tolerance": 0.1}
    rows = [
        {"messages": json.dumps(turns) if as_json else turns, "answer": "4", "task": None,
         "metadata": json.dumps(metadata) if as_json else metadata},
    ]  # fmt: skip
    pl.DataFrame(rows).write_parquet(tmp_path / "prompts.parquet")
    (question,) = from_file(tmp_path / "prompts.parquet", "numeric")
    assert (question.prompt, len(question.asked.messages), question.metadata) == ("Sure?", 3, metadata)
    pl.DataFrame(rows).drop("answer").write_parquet(tmp_path / "prompts.parquet")
    with pytest.raises(DatasetError, match=r"prompts\.parquet: row 0: answer is missing"):
        from_file(tmp_path / "prompts.parquet", "numeric")
    (tmp_path / "prompts.parquet").write_text("no Parquet")
    with pytest.raises(DatasetError, match=r"prompts\.parquet: "):
        from_file(tmp_path / "prompts.parquet", "numeric")


def test_an_empty_file_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no questions"):
        from_file(file_of(tmp_path, ""), "math")
    with pytest.raises(DatasetError, match="nowhere"):
        from_file(tmp_path / "nowhere", "math")


def test_reasoning_gym_questions_are_scored_by_their_own_verifier() -> None:
    questions = from_gym(["chain_sum", "spell_backward"], 5, seed=1)
    assert [q.task for q in questions] == ["chain_sum"] * 5 + ["spell_backward"] * 5
    for question in questions:
        assert SCORERS[question.scorer](question.reference, question.reference, question.metadata).correct == 1


def test_an_unknown_data_set_is_refused_by_name() -> None:
    with pytest.raises(DatasetError, match="no_such_set"):
        from_gym(["no_such_set"], 5, seed=1)


def test_held_out_questions_are_distinct_held_out_and_of_every_level() -> None:
    chosen = held_out_questions(3, 5)
    assert all(held_out(question.prompt) for question in chosen)
    assert len({question.prompt for question in chosen}) == len(chosen)
    assert {question.task for question in chosen} == {f"{f.name}/{k}" for f in FAMILIES for k in range(LEVELS)}


def test_the_digest_tells_questions_references_and_order_apart() -> None:
    one, two = (Question(text, "4", None, text, "exact", {}) for text in "ab")
    other = Question("a", "5", None, "a", "exact", {})
    assert len({digest(some) for some in ([one, two], [two, one], [one], [other, two])}) == 4
    assert digest([one, two]) == digest([one, two])


def test_a_line_that_repeats_another_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prompts that were logged repeat each other."""
    path = file_of(tmp_path, *[{"prompt": "2 + 2 =", "answer": "4"}] * 3, {"prompt": "3 =", "answer": "3"})
    assert [question.prompt for question in from_file(path, "numeric")] == ["2 + 2 =", "3 ="]
    assert capsys.readouterr().err == "collect: 2 lines left out, which repeat another\n"


def test_the_command_line_knows_every_scorer() -> None:
    """It lists them itself: their packages take a second to import, which a help text must not."""
    (option,) = (one for one in collect.params if one.name == "scorer")
    assert isinstance(option.type, click.Choice) and set(option.type.choices) == set(NAMES)
