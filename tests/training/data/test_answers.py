"""Which answers are the same: by key, by trace, or because neither is whole."""

from typing import Any

import polars as pl
import pytest

from tests.support.synthetic import sums
from training.data.answers import identified, with_known_labels
from training.data.dataset import from_frame
from training.data.schema import DatasetError, conformed

TOP = 3
ENDED = {"thinking_ended": "natural"}


def rows(*changes: dict[str, Any], samples: int = 1) -> pl.DataFrame:
    """One prompt at four rungs; each change is about a rung, and a sample if that is named."""
    frame = sums(1, samples=samples).with_columns(answer=pl.lit(None, pl.String))
    for change in changes:
        here = (pl.col("rung_order") == change["rung_order"]) & (pl.col("sample_id") == change.get("sample_id", 0))
        frame = frame.with_columns(
            pl.when(here).then(pl.lit(value)).otherwise(pl.col(name)).cast(frame.schema[name]).alias(name)
            for name, value in change.items()
        )
    return frame


def same(frame: pl.DataFrame) -> list[bool]:
    """Rungs whose answer is the top one's."""
    found = from_frame(frame.with_columns(correct=pl.lit(None, pl.Float64)), unlabelled=True).same
    assert found is not None
    return list(map(bool, found[0]))


def at(rung: int, **values: Any) -> dict[str, Any]:
    return {"rung_order": rung, **values}


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (rows(), [0, 0, 0]),
        (rows(at(0, answer="4"), at(1, answer="5"), at(TOP, answer="4")), [1, 0, 0]),
        (rows(*(at(rung, trace_id="t") for rung in range(4)), at(2, thinking_ended="natural")), [0, 0, 1]),
        (rows(*(at(rung, trace_id="t", thinking_ended="cut") for rung in range(4))), [0, 0, 0]),
        (rows(at(1, thinking_ended="natural"), at(TOP, thinking_ended="natural")), [0, 0, 0]),
        (rows(at(1, trace_id="t", **ENDED), at(TOP, trace_id="u", **ENDED)), [0, 0, 0]),
        (rows(at(0, finish="truncated"), at(1, finish="no_answer"), at(TOP, finish="truncated")), [1, 1, 0]),
        (rows(at(0, finish="truncated", answer="4"), at(1, answer="4"), at(TOP, answer="4")), [0, 1, 0]),
    ],
)  # fmt: skip
def test_which_answers_are_the_top_rungs(frame: pl.DataFrame, expected: list[int]) -> None:
    assert same(frame) == [*map(bool, expected), True]


def test_of_several_samples_all_must_be_the_same_in_any_order() -> None:
    keys = [("4", "5"), ("5", "4"), ("4", "4"), ("4", "5")]
    frame = rows(
        *(at(rung, answer=key, sample_id=i) for rung, pair in enumerate(keys) for i, key in enumerate(pair)), samples=2
    )
    assert same(frame) == [True, True, False, True]


def test_a_label_serves_all_rows_of_its_answer_and_a_missing_one_makes_the_mean_unknown() -> None:
    frame = rows(at(0, answer="4"), at(1, answer="5"), at(2, finish="truncated"), at(TOP, answer="4"))
    labels = pl.Series("correct", [None, None, None, 1.0])
    outcomes = from_frame(frame.with_columns(labels), unlabelled=True)
    assert outcomes.correct[0, [0, 2, 3]].tolist() == [1, 0, 1] and outcomes.correct[0, 1] != outcomes.correct[0, 1]


def test_labels_that_contradict_each_other_serve_no_other_row() -> None:
    frame = rows(*(at(rung, answer="4") for rung in range(4))).with_columns(
        pl.Series("correct", [None, None, 0.0, 1.0])
    )
    filled = with_known_labels(identified(conformed(frame.lazy()))).collect()
    assert filled["correct"].to_list() == [None, None, 0.0, 1.0]


def test_a_label_needs_a_source_and_a_key_a_text() -> None:
    frame = rows(at(0, answer="4"))
    with pytest.raises(DatasetError, match="row 0, column label_source: None: is missing"):
        from_frame(frame.with_columns(label_source=pl.lit(None, pl.String)), unlabelled=True)
    with pytest.raises(DatasetError, match="row 1, column answer: '': is empty"):
        from_frame(rows(at(1, answer="")), unlabelled=True)
