"""Traces of outcome files, and of tables that are none."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from router.domain import Prompt
from tests.support.synthetic import asked
from training.data.schema import ANSWER_KIND, DatasetError
from training.stopping.traces import ASSUMED_PROBE_TOKENS, NO_ANSWER, Steps, from_frame, read, read_steps

CAPS = (0, 100, 200)


def row(prompt: str, cap: int | None, answer: str | None, **other: Any) -> dict[str, Any]:
    """A row of a table that somebody wrote by hand."""
    tokens = cap if cap is not None else 500
    return {"prompt": prompt, "budget_tokens": cap, "answer": answer, "correct": 1.0, "thinking_tokens": tokens} | other


def prompt_of(answers: str, **other: Any) -> list[dict[str, Any]]:
    """A prompt whose answers at CAPS are these letters; "-" is none."""
    return [row("p", cap, None if key == "-" else key, **other) for cap, key in zip(CAPS, answers, strict=True)]


def test_a_table_needs_no_more_than_five_columns() -> None:
    traces = from_frame(pl.DataFrame(prompt_of("ABB")))
    assert [rung.name for rung in traces.ladder.rungs] == ["0", "100", "200"]
    assert len(traces) == 1 and traces.prompts == asked("p") and traces.groups == ["p"]
    assert traces.answers[0, 0] != traces.answers[0, 1] == traces.answers[0, 2]
    assert traces.probe_tokens.tolist() == [[ASSUMED_PROBE_TOKENS] * 3]
    assert traces.has_answers and not traces.has_logprobs


def test_a_cut_without_an_answer_agrees_with_nothing() -> None:
    assert from_frame(pl.DataFrame(prompt_of("--A"))).answers[0, :2].tolist() == [NO_ANSWER, NO_ANSWER]


def test_the_key_of_a_probe_goes_before_that_of_the_whole_answer() -> None:
    rows = prompt_of("ABC", probe_answer="x")
    assert len(set(from_frame(pl.DataFrame(rows)).answers[0].tolist())) == 1


def test_a_probe_without_an_answer_is_none_whatever_the_whole_answer_says() -> None:
    rows = prompt_of("AAA", probe_answer=None, probe_tokens=32)
    assert not from_frame(pl.DataFrame(rows, schema_overrides={"probe_answer": pl.String})).has_answers


def test_the_answer_of_a_second_attempt_is_none_of_the_first_cut() -> None:
    rows = [row("p", cap, "A", attempts=tries) for cap, tries in zip(CAPS, (2, 1, 1), strict=True)]
    answers = from_frame(pl.DataFrame(rows)).answers[0]
    assert answers[0] == NO_ANSWER and answers[1] == answers[2] != NO_ANSWER


def test_a_thought_has_ended_where_it_says_so_and_stays_ended() -> None:
    rows = [row("p", cap, "A", thinking_ended=how) for cap, how in zip(CAPS, ("cut", "natural", "cut"), strict=True)]
    assert from_frame(pl.DataFrame(rows)).ended.tolist() == [[False, True, True]]


def test_without_that_a_natural_end_below_the_cap_is_one() -> None:
    rows = [row("p", 0, "A"), row("p", 100, "A", thinking_tokens=60), row("p", 200, "A", thinking_tokens=200)]
    frame = pl.DataFrame(rows).with_columns(finish=pl.lit("natural"))
    assert from_frame(frame).ended.tolist() == [[False, True, True]]
    assert not from_frame(frame.with_columns(finish=pl.lit("forced"))).ended.any()


def test_samples_are_traces_of_their_own_and_stay_in_their_group() -> None:
    rows = [one | {"sample_id": i} for i in range(2) for one in prompt_of("AAB")]
    traces = from_frame(pl.DataFrame(rows))
    assert len(traces) == 2 and set(traces.groups) == {"p"}


def test_a_prompt_that_lacks_a_rung_is_left_out_alone() -> None:
    rows = [*prompt_of("AAA"), row("other", 0, "A"), row("other", 100, "A")]
    assert from_frame(pl.DataFrame(rows)).prompts == asked("p")


def test_an_engines_failures_are_no_answers() -> None:
    rows = [*prompt_of("AAA"), *(row("failed", cap, None, finish="error") for cap in CAPS)]
    assert from_frame(pl.DataFrame(rows, infer_schema_length=None)).prompts == asked("p")


@pytest.mark.parametrize("name", ["prompt", "budget_tokens", "correct", "thinking_tokens", "answer"])
def test_a_missing_column_is_named(name: str, tmp_path: Path) -> None:
    pl.DataFrame(prompt_of("AAA")).drop(name).write_parquet(tmp_path / "o.parquet")
    with pytest.raises(DatasetError, match=rf"o\.parquet: column {name}: is missing"):
        read(tmp_path / "o.parquet")


def test_taking_rows_keeps_tables_and_lists_together() -> None:
    rows = [row(prompt, cap, answer) for prompt, answer in (("a", "X"), ("b", "Y")) for cap in CAPS]
    traces = from_frame(pl.DataFrame(rows))
    taken = traces.take(np.array([traces.prompts.index(Prompt.of("b"))]))
    assert taken.prompts == asked("b") and taken.answers.shape == (1, 3)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (prompt_of("ABB"), ""),
        ([*prompt_of("ABB")[:2], row("p", None, "B", rung_order=2)], ""),
        ([row("p", None, "A", rung_order=0), row("p", None, "B", rung_order=1)], "has no cap"),
        ([row("p", cap, None) for cap in CAPS], "no answer was recorded"),
        ([row("p", cap, "A", correct=None) for cap in CAPS], "column correct"),
        (prompt_of("ABB", trace_id=None), ""),
        ([*prompt_of("ABB", trace_id=None), *prompt_of("AAB", trace_id=None)], "column `trace_id`"),
    ],
    ids=["caps", "no cap at the top", "named efforts", "no answers", "no labels", "one run a rung", "drawn answers"],
)
def test_steps_need_answers_labels_and_caps(rows: list[dict[str, Any]], why: str, tmp_path: Path) -> None:
    types = {"answer": pl.String, "budget_tokens": pl.Int64, "correct": pl.Float64, "trace_id": pl.String}
    frame = pl.DataFrame([{"trace_id": "t"} | one for one in rows], schema_overrides=types)
    if "rung_order" in frame.columns:
        frame = frame.with_columns(
            pl.col("rung_order").fill_null(pl.int_range(pl.len(), dtype=pl.Int32)).cast(pl.Int32)
        )
    frame.write_parquet(tmp_path / "o.parquet")
    steps = read_steps(tmp_path / "o.parquet")
    assert isinstance(steps, Steps) if not why else why in str(steps)
    if isinstance(steps, Steps):
        assert steps.nested == (rows[0].get("trace_id", "t") is not None)


def test_the_file_says_how_its_answers_were_compared(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    for said, given, kind in (({}, None, "text"), ({ANSWER_KIND: "math"}, None, "math"), ({}, "choice", "choice")):
        pl.DataFrame(prompt_of("ABB", trace_id="t")).write_parquet(path, metadata=said)
        steps = read_steps(path, given)
        assert isinstance(steps, Steps) and steps.kind == kind
    pl.DataFrame(prompt_of("ABB")).write_parquet(path, metadata={ANSWER_KIND: ""})
    assert "several ways" in str(read_steps(path))
