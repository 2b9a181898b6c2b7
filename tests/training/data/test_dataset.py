"""Outcome files: the splits, and what is refused by name."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.dataset import from_frame, read, splits, validate
from training.data.outcomes import concatenate
from training.data.overview import Overview, overview
from training.data.schema import OPTIONAL, SCHEMA, DatasetError, write
from training.data.splits import SPLITS, prompt_id, split_of
from training.pocket.tasks import FAMILIES

CAPS = (0, 16, 64)


def row(prompt: str, order: int, **changes: Any) -> dict[str, Any]:
    """One outcome."""
    identity = prompt_id(prompt)
    return {
        "prompt": prompt,
        "prompt_id": identity,
        "group": identity,
        "task": "sum/0",
        "backend": "pocket",
        "model": "m",
        "rung": str(CAPS[order]),
        "rung_order": order,
        "budget_tokens": CAPS[order],
        "sample_id": 0,
        "correct": float(order > 0),
        "label_source": "verifier",
        "thinking_tokens": order * 10,
        "finish": "natural",
    } | changes


def rows(prompts: int) -> list[dict[str, Any]]:
    """Every rung of some prompts."""
    return [row(f"prompt {i}", order) for i in range(prompts) for order in range(len(CAPS))]


def table(given: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(given, SCHEMA)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good outcome file."""
    path = tmp_path / "outcomes.parquet"
    write(table(rows(60)), path)
    return path


def test_a_file_is_read_by_prompt_and_rung(file: Path) -> None:
    outcomes = read(file)
    assert len(outcomes) == 60
    assert outcomes.model == "m"
    assert [(rung.name, rung.tokens) for rung in outcomes.ladder.rungs] == [(str(cap), cap) for cap in CAPS]
    assert outcomes.correct.tolist() == [[0, 1, 1]] * 60
    assert outcomes.thinking_tokens.tolist() == [[0, 10, 20]] * 60
    assert sorted(prompt.text for prompt in outcomes.prompts) == sorted(f"prompt {i}" for i in range(60))


def test_texts_stay_with_their_outcomes() -> None:
    given = [row(f"prompt {i}", order, correct=i / 10) for order in (2, 0, 1) for i in (3, 1, 2)]
    outcomes = from_frame(table(given))
    for prompt, correct in zip(outcomes.prompts, outcomes.correct, strict=True):
        assert correct.tolist() == [int(prompt.text.split()[1]) / 10] * 3


def test_repeats_are_averaged() -> None:
    given = [row("a", order, sample_id=n, correct=float(n == 0)) for n in range(4) for order in range(3)]
    assert from_frame(table(given)).correct.tolist() == [[0.25] * 3]


def test_a_rung_without_a_number_is_kept() -> None:
    given = [row("a", 0), row("a", 1, rung="high", budget_tokens=None)]
    assert [rung.tokens for rung in from_frame(table(given)).ladder.rungs] == [0, None]


def test_splits_are_disjoint_and_lose_nothing() -> None:
    outcomes = from_frame(table(rows(300)))
    parts = splits(outcomes)
    assert list(parts) == list(SPLITS)
    prompts = [prompt for part in parts.values() for prompt in part.prompts]
    assert len(prompts) == len(set(prompts)) and set(prompts) == set(outcomes.prompts)


def test_splits_have_about_their_shares() -> None:
    names = [split_of(str(i)) for i in range(5_000)]
    for name, share in SPLITS.items():
        assert names.count(name) / len(names) == pytest.approx(share, abs=0.03)


def test_a_prompts_split_does_not_change_when_data_is_added() -> None:
    few, many = (splits(from_frame(table(rows(n)))) for n in (100, 200))
    for name, part in few.items():
        assert set(part.prompts) <= set(many[name].prompts)


def test_splits_are_stable_for_ever() -> None:
    assert [split_of(group) for group in "agqlv"] == ["fit", "test", "certify", "test", "certify"]


@given(st.text())
def test_every_group_has_one_split(group: str) -> None:
    assert split_of(group) in SPLITS
    assert split_of(group) == split_of(group)


def test_a_group_stays_on_one_side() -> None:
    given = [row(f"prompt {i}", order, group=f"group {i % 40}") for i in range(200) for order in range(3)]
    sides = [set(part.groups) for part in splits(from_frame(table(given))).values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 40


def test_take_keeps_rows_together() -> None:
    outcomes = from_frame(table([row(f"prompt {i}", order, correct=i / 10) for i in range(5) for order in range(3)]))
    taken = outcomes.take(np.array([4, 0]))
    assert taken.prompts == [outcomes.prompts[4], outcomes.prompts[0]]
    assert np.array_equal(taken.correct, outcomes.correct[[4, 0]])


@pytest.mark.parametrize("prompts", [1, 5, 30])
def test_too_few_prompts_are_refused(prompts: int) -> None:
    with pytest.raises(DatasetError, match=f"{prompts} prompts? (is|are) too few"):
        splits(from_frame(table(rows(prompts))))


@pytest.mark.parametrize("correct", [0.0, 1.0])
def test_a_single_class_is_refused(correct: float) -> None:
    given = [one | {"correct": correct} for one in rows(200)]
    with pytest.raises(DatasetError, match="single class"):
        splits(from_frame(table(given)))


def test_a_missing_cell_costs_its_prompt_alone_and_is_counted(tmp_path: Path) -> None:
    given = rows(200)
    del given[4]
    assert sorted(prompt.text for prompt in from_frame(table(given)).prompts) == sorted(
        f"prompt {i}" for i in range(200) if i != 1
    )
    write(table(given), tmp_path / "o.parquet")
    seen = overview(tmp_path / "o.parquet")
    assert validate(tmp_path / "o.parquet") == []
    assert isinstance(seen, Overview) and (seen.prompts, seen.lost) == (199, 1)


def test_a_file_in_which_no_prompt_has_every_rung_says_which_is_rarest() -> None:
    given = [one for i, one in enumerate(rows(3)) if i % 3 != 1 or i == 1] + [row("another", 1)]
    del given[0]
    with pytest.raises(DatasetError, match="no prompt has every rung: of 4 prompts, 2 have rung"):
        from_frame(table(given))


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "correct below 0": ({"correct": -0.1}, "column correct: -0.1: does not lie in 0..1"),
    "correct above 1": ({"correct": 1.1}, "column correct: 1.1: does not lie in 0..1"),
    "correct NaN": ({"correct": float("nan")}, "column correct: nan: does not lie in 0..1"),
    "correct infinite": ({"correct": float("inf")}, "column correct: inf: does not lie in 0..1"),
    "correct null": ({"correct": None}, "column correct: None: is missing"),
    "prompt null": ({"prompt": None}, "column prompt: None: is missing"),
    "prompt empty": ({"prompt": ""}, "column prompt: '': is empty"),
    "tokens negative": ({"thinking_tokens": -1}, "column thinking_tokens: -1: is negative"),
    "budget negative": ({"budget_tokens": -1}, "column budget_tokens: -1: is negative"),
    "unknown finish": ({"finish": "tired"}, "column finish: 'tired': is none of natural"),
    "unknown source": ({"label_source": "gut"}, "column label_source: 'gut': is none of verifier"),
    "propensity 0": ({"propensity": 0.0}, "column propensity: 0.0: does not lie in 0..1"),
    "unknown rung": ({"rung": "17"}, "column rung: the position had another rung"),
    "another budget": ({"budget_tokens": 90}, "column rung: the position had another rung or budget"),
    "tokens above the cap": ({"thinking_tokens": 67}, "column thinking_tokens: 67: is above the row's budget_tokens"),
    "no attempt": ({"attempts": 0}, "column attempts: 0: is below 1"),
    "unknown end of a thought": ({"thinking_ended": "late"}, "column thinking_ended: 'late': is none of natural, cut"),
    "a probability for its logarithm": ({"probe_logprob": 0.7}, "column probe_logprob: 0.7: is above 0"),
    "probe tokens negative": ({"probe_tokens": -1}, "column probe_tokens: -1: is negative"),
    "another position": ({"rung": "0"}, "column rung: the position had another rung"),
    "another model": ({"model": "m2"}, "column model: another model than before at this rung"),
    "another group": ({"group": "g2"}, "column group: the prompt had another group before"),
    "messages that are no JSON": ({"messages": "{"}, "column messages: is not JSON"),
    "messages empty": ({"messages": ""}, "column messages: '': is empty"),
    "an unknown role": ({"messages": '[{"role": "x"}]'}, "column messages[0].role: 'x' is none of system"),
    "an unknown field": ({"messages": '[{"role": "user", "x": 1}]'}, "column messages[0].x: is no known field"),
    "messages that ask something else": (
        {"messages": '[{"role": "user", "content": "else"}]'},
        "column prompt: 'prompt 1': is not what the messages ask last, 'else'",
    ),
    "other messages": (
        {"messages": '[{"role": "user", "content": "prompt 1"}]'},
        "column messages: the prompt had other messages before",
    ),
    "another text": ({"prompt": "else"}, "column prompt: the prompt had another text before"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named_with_its_column(name: str, tmp_path: Path) -> None:
    change, message = BROKEN[name]
    given = rows(30)
    given[5] |= change
    table(given).write_parquet(tmp_path / "o.parquet")
    with pytest.raises(DatasetError, match="row 5, " + re.escape(message)):
        read(tmp_path / "o.parquet")
    assert any(fault.startswith(f"row 5, {message}") for fault in validate(tmp_path / "o.parquet"))


def fault_of(given: list[dict[str, Any]]) -> str:
    with pytest.raises(DatasetError) as raised:
        from_frame(table(given))
    return str(raised.value)


def test_an_answer_that_is_counted_twice_is_named() -> None:
    given = rows(30)
    assert fault_of([*given, given[4], given[7]]).startswith("row 90, column sample_id: repeats row 4; number further")
    assert fault_of([*given, given[4], given[7]]).endswith("(2 rows)")
    assert fault_of([*given, given[4] | {"correct": 0.5}]).startswith("row 90, column sample_id: repeats row 4")


@pytest.mark.parametrize("caps", [(0, 64, 16), (16, None, 64), (64, 16, 32)])
def test_caps_out_of_order_are_named(caps: tuple[int | None, ...]) -> None:
    given = [one | {"budget_tokens": caps[one["rung_order"]], "thinking_tokens": 0} for one in rows(30)]
    fault = fault_of(given)
    lowest = min(cap or 99 for cap in caps[1:])
    assert fault.startswith(f"row {caps.index(lowest)}, column budget_tokens: {lowest}: comes after ")
    assert "rung_order must rise with the cap" in fault


def test_tokens_may_exceed_the_cap_where_it_is_a_hint_or_there_were_two_attempts() -> None:
    given = [one | {"thinking_tokens": 500} for one in rows(30)]
    assert "thinking_tokens: 500" in fault_of(given) and fault_of(given).endswith("(90 rows)")
    for allowed in ({"model": "openai/m/hint"}, {"attempts": 2}, {"budget_tokens": None}):
        from_frame(table([one | allowed for one in given]))


def test_soft_budgets_may_be_exceeded_and_the_message_says_how(tmp_path: Path) -> None:
    given = [one | {"thinking_tokens": 500} for one in rows(200)]
    table(given).write_parquet(tmp_path / "o.parquet")
    (fault,) = validate(tmp_path / "o.parquet")
    assert "give --soft-budgets, or a model that ends in /hint" in fault
    assert validate(tmp_path / "o.parquet", soft=True) == []
    assert [rung.tokens for rung in read(tmp_path / "o.parquet", soft=True).ladder.rungs] == list(CAPS)


def test_a_rung_may_be_another_model_and_is_named_so() -> None:
    given = [one | ({"model": "instruct"} if one["rung_order"] == 0 else {}) for one in rows(30)]
    assert from_frame(table(given)).model == "m, rung 0: instruct"
    assert from_frame(table(rows(30))).model == "m"


def test_tokens_of_answers_are_counted_where_all_are_recorded() -> None:
    given = [one | {"total_tokens": one["thinking_tokens"] + 7} for one in rows(30)]
    outcomes = from_frame(table(given))
    assert outcomes.known_totals and outcomes.totals_at(np.full(30, 2)).tolist() == [27] * 30  # type: ignore[union-attr]
    del given[3]["total_tokens"]
    some = from_frame(table(given))
    assert not some.known_totals and some.totals_at(np.full(30, 2)) is None


def test_validation_names_every_kind_of_fault(tmp_path: Path) -> None:
    given = rows(30)
    given[3]["correct"], given[8]["finish"], given[9]["correct"] = 2.0, "tired", 3.0
    table(given).write_parquet(tmp_path / "o.parquet")
    assert [fault.split(":")[0] for fault in validate(tmp_path / "o.parquet")] == [
        "row 3, column correct",
        "row 8, column finish",
    ]


def test_a_good_file_has_no_faults(tmp_path: Path) -> None:
    write(table(rows(200)), tmp_path / "o.parquet")
    assert validate(tmp_path / "o.parquet") == []


def test_unknown_token_counts_are_kept_as_unknown() -> None:
    given = rows(60)
    for one in given[2::3]:
        one["thinking_tokens"] = None
    outcomes = from_frame(table(given))
    assert outcomes.known_tokens.tolist() == [True, True, False]
    assert np.isnan(outcomes.thinking_tokens[:, 2]).all()


def test_rows_of_engine_errors_carry_no_label() -> None:
    given = [*rows(3), row("prompt 1", 1, sample_id=1, correct=0.0, finish="error")]
    assert from_frame(table(given)).correct.tolist() == [[0, 1, 1]] * 3


def test_halves_are_the_even_and_the_odd_samples() -> None:
    given = [row("a", order, sample_id=n, correct=float(n % 2)) for n in range(4) for order in range(3)]
    outcomes = from_frame(table(given))
    assert outcomes.halves.tolist() == [[[0.0] * 3], [[1.0] * 3]]
    assert outcomes.samples.tolist() == [[4] * 3]


def test_the_overview_counts_twins_and_leaks(tmp_path: Path) -> None:
    given = rows(200) + [row(f"PROMPT  {i}", order) for i in range(50) for order in range(3)]
    write(table(given), tmp_path / "o.parquet")
    seen = overview(tmp_path / "o.parquet")
    assert isinstance(seen, Overview)
    sides = [split_of(prompt_id(f"prompt {i}")) != split_of(prompt_id(f"PROMPT  {i}")) for i in range(50)]
    assert (seen.rows, seen.prompts, seen.duplicates, seen.leaks) == (750, 250, 50, sum(sides))
    assert seen.not_rising == [] and seen.unknown_tokens == []


def test_a_rung_that_is_worse_than_a_cheaper_one_is_reported(tmp_path: Path) -> None:
    given = [row(f"prompt {i}", order, correct=float(order != 2)) for i in range(60) for order in range(3)]
    write(table(given), tmp_path / "o.parquet")
    seen = overview(tmp_path / "o.parquet")
    assert isinstance(seen, Overview) and seen.not_rising == ["16 > 64"]


def test_joining_keeps_every_prompt() -> None:
    parts = splits(from_frame(table(rows(300))))
    both = concatenate(parts["certify"], parts["test"])
    assert both.prompts == parts["certify"].prompts + parts["test"].prompts
    assert both.correct.shape == (len(both), 3) and both.halves.shape == (2, len(both), 3)


def test_a_gap_in_the_ladder_is_refused() -> None:
    given = [one for one in rows(3) if one["rung_order"] != 1]
    with pytest.raises(DatasetError, match="rung_order"):
        from_frame(table(given))


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(DatasetError, match="no rows"):
        from_frame(table([]))


@pytest.mark.parametrize("keep", [0, 4, 100, -8])
def test_a_truncated_file_is_refused_by_name(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=file.name):
        read(file)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        read(tmp_path / "nowhere.parquet")


@pytest.mark.parametrize("column", sorted(set(SCHEMA) - OPTIONAL))
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = tmp_path / "o.parquet"
    table(rows(30)).drop(column).write_parquet(path)
    with pytest.raises(DatasetError, match=f"o.parquet: column {column}: is missing"):
        read(path)


def test_optional_columns_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    table(rows(30)).drop(*OPTIONAL).write_parquet(path)
    outcomes = read(path)
    assert not outcomes.known_tokens.any() and [rung.tokens for rung in outcomes.ladder.rungs] == [None] * 3


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    table(rows(3)).with_columns(correct=pl.lit("right")).write_parquet(path)
    with pytest.raises(DatasetError, match=r"o\.parquet: column correct: holds String, not Float64"):
        read(path)


def test_narrower_types_are_widened(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    narrow = table(rows(30)).cast({"correct": pl.Boolean, "rung_order": pl.Int8, "task": pl.Categorical})
    narrow.write_parquet(path)
    assert read(path).correct.tolist() == [[0, 1, 1]] * 30


def test_further_columns_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    table(rows(3)).with_columns(later=1).write_parquet(path)
    assert len(read(path)) == 3


def test_writing_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    write(table(rows(3)), tmp_path / "deep" / "o.parquet")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["o.parquet"]


def test_prompt_ids_are_stable_and_distinct() -> None:
    assert prompt_id("2 + 2 =") == prompt_id("2 + 2 =") and len(prompt_id("")) == 16
    assert len({prompt_id(family.name) for family in FAMILIES}) == len(FAMILIES)


def conversation(number: int) -> str:
    turns = ("user", f"question {number}"), ("assistant", "First,"), ("user", "yes, go on")
    return json.dumps([{"role": role, "content": text} for role, text in turns])


def test_a_conversation_is_read_whole_and_known_by_its_messages(tmp_path: Path) -> None:
    given = [
        row("yes, go on", order, messages=messages, prompt_id=prompt_id(messages), group="g", kind="follow-up")
        for messages in map(conversation, range(30))
        for order in range(len(CAPS))
    ]
    write(table([*given, *rows(60)]), tmp_path / "o.parquet")
    assert validate(tmp_path / "o.parquet") == []
    outcomes, seen = read(tmp_path / "o.parquet"), overview(tmp_path / "o.parquet")
    assert len(set(outcomes.prompts)) == len(outcomes) == 90
    assert outcomes.kinds is not None and outcomes.kinds.count("follow-up") == 30
    follow_up = next(prompt for prompt in outcomes.prompts if len(prompt.messages) == 3)
    assert follow_up.messages[1].content == "First," and follow_up.text == "yes, go on"
    assert isinstance(seen, Overview) and (seen.duplicates, seen.leaks, seen.groups) == (0, 0, 61)


def test_conversations_that_cannot_be_read_are_counted() -> None:
    given = rows(30)
    for place in (4, 7):
        given[place] |= {"messages": "[]"}
    assert fault_of(given) == "row 4, column messages: is not a list of messages (2 rows)"
