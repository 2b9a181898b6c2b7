"""Outcome files: the splits, and what is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.dataset import SCHEMA, SPLITS, DatasetError, from_table, prompt_id, read, split_of, splits
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


def table(given: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(given, SCHEMA)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good outcome file."""
    path = tmp_path / "outcomes.parquet"
    pq.write_table(table(rows(60)), path)
    return path


def test_a_file_is_read_by_prompt_and_rung(file: Path) -> None:
    outcomes = read(file)
    assert len(outcomes) == 60
    assert outcomes.model == "m"
    assert [(rung.name, rung.tokens) for rung in outcomes.ladder.rungs] == [(str(cap), cap) for cap in CAPS]
    assert outcomes.correct.tolist() == [[0, 1, 1]] * 60
    assert outcomes.thinking_tokens.tolist() == [[0, 10, 20]] * 60
    assert sorted(outcomes.prompts) == sorted(f"prompt {i}" for i in range(60))


def test_texts_stay_with_their_outcomes() -> None:
    given = [row(f"prompt {i}", order, correct=i / 10) for order in (2, 0, 1) for i in (3, 1, 2)]
    outcomes = from_table(table(given))
    for text, correct in zip(outcomes.prompts, outcomes.correct, strict=True):
        assert correct.tolist() == [int(text.split()[1]) / 10] * 3


def test_repeats_are_averaged() -> None:
    given = [row("a", order, sample_id=n, correct=float(n == 0)) for n in range(4) for order in range(3)]
    assert from_table(table(given)).correct.tolist() == [[0.25] * 3]


def test_a_rung_without_a_number_is_kept() -> None:
    given = [row("a", 0), row("a", 1, rung="high", budget_tokens=None)]
    assert [rung.tokens for rung in from_table(table(given)).ladder.rungs] == [0, None]


def test_splits_are_disjoint_and_lose_nothing() -> None:
    outcomes = from_table(table(rows(300)))
    parts = splits(outcomes)
    assert list(parts) == list(SPLITS)
    texts = [text for part in parts.values() for text in part.prompts]
    assert sorted(texts) == sorted(outcomes.prompts)


def test_splits_have_about_their_shares() -> None:
    names = [split_of(str(i)) for i in range(5_000)]
    for name, share in SPLITS.items():
        assert names.count(name) / len(names) == pytest.approx(share, abs=0.03)


def test_a_prompts_split_does_not_change_when_data_is_added() -> None:
    few, many = (splits(from_table(table(rows(n)))) for n in (100, 200))
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
    sides = [set(part.groups) for part in splits(from_table(table(given))).values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 40


def test_take_keeps_rows_together() -> None:
    outcomes = from_table(table([row(f"prompt {i}", order, correct=i / 10) for i in range(5) for order in range(3)]))
    taken = outcomes.take(np.array([4, 0]))
    assert taken.prompts == [outcomes.prompts[4], outcomes.prompts[0]]
    assert np.array_equal(taken.correct, outcomes.correct[[4, 0]])


def test_too_few_prompts_are_refused() -> None:
    with pytest.raises(DatasetError, match="too few"):
        splits(from_table(table(rows(1))))


def test_a_missing_rung_is_named() -> None:
    given = rows(3)
    del given[4]
    with pytest.raises(DatasetError, match=f"{prompt_id('prompt 1')}.*rung 16 is missing"):
        from_table(table(given))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_correctness_outside_its_range_names_the_row(value: float) -> None:
    given = rows(3)
    given[5]["correct"] = value
    with pytest.raises(DatasetError, match=r"row 5: correct"):
        from_table(table(given))


def test_a_missing_correctness_is_refused(tmp_path: Path) -> None:
    loose = pa.schema([pa.field(f.name, f.type) for f in SCHEMA])
    given = rows(3)
    given[2]["correct"] = None
    pq.write_table(pa.Table.from_pylist(given, loose), tmp_path / "o.parquet")
    with pytest.raises(DatasetError, match="correct"):
        read(tmp_path / "o.parquet")


def test_a_missing_token_count_names_the_row() -> None:
    given = rows(3)
    given[4]["thinking_tokens"] = None
    with pytest.raises(DatasetError, match=r"row 4: thinking_tokens"):
        from_table(table(given))


def test_two_models_in_one_file_are_refused() -> None:
    given = rows(3)
    given[0]["model"] = "another"
    with pytest.raises(DatasetError, match="2 models"):
        from_table(table(given))


def test_a_gap_in_the_ladder_is_refused() -> None:
    given = [one for one in rows(3) if one["rung_order"] != 1]
    with pytest.raises(DatasetError, match="rung_order"):
        from_table(table(given))


def test_a_rung_with_two_budgets_is_refused() -> None:
    given = rows(3)
    given[1]["budget_tokens"] = 17
    with pytest.raises(DatasetError, match="rung_order"):
        from_table(table(given))


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(DatasetError):
        from_table(table([]))


@pytest.mark.parametrize("keep", [0, 4, 100, -8])
def test_a_truncated_file_is_refused_by_name(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=file.name):
        read(file)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        read(tmp_path / "nowhere.parquet")


@pytest.mark.parametrize("column", ["prompt", "correct", "rung_order", "thinking_tokens"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = tmp_path / "o.parquet"
    pq.write_table(table(rows(3)).drop_columns([column]), path)
    with pytest.raises(DatasetError, match=column):
        read(path)


def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    good = table(rows(3))
    words = pa.array(["right"] * good.num_rows)
    pq.write_table(good.set_column(good.schema.get_field_index("correct"), "correct", words), path)
    with pytest.raises(DatasetError, match=r"o\.parquet"):
        read(path)


def test_further_columns_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    good = table(rows(3))
    pq.write_table(good.append_column("later", pa.array([1] * good.num_rows)), path)
    assert len(read(path)) == 3


def test_prompt_ids_are_stable_and_distinct() -> None:
    assert prompt_id("2 + 2 =") == prompt_id("2 + 2 =") and len(prompt_id("")) == 16
    assert len({prompt_id(family.name) for family in FAMILIES}) == len(FAMILIES)
