"""`budget-router outcomes export`: the outcome log as a file of the outcome schema."""

import json
from collections.abc import Iterable
from pathlib import Path

import click
import polars as pl

from router import chat_form
from router.cli.strict import Group, NewFile
from router.digits import counted
from router.domain import DecisionSource, Rule
from router.outcomes.rows import Row, prompt_of
from training.data.log import read
from training.data.schema import SCHEMA, DatasetError, write
from training.options import json_output, outcome_log

UNBUDGETED = DecisionSource.ENGINE_DEFAULT.value

SAME_NAME = (
    "prompt", "prompt_id", "rung", "rung_order", "budget_tokens", "correct", "label_source", "thinking_tokens",
    "attempts", "propensity", "decision_id",
)  # fmt: skip
"""Columns that have the same name and meaning in the log and in the schema."""


def frame(logged: Iterable[Row]) -> pl.DataFrame:
    """The logged decisions that have an outcome and a prompt, in the outcome schema.

    Decisions for an engine's own default are left out: no ladder has such a rung. So are thoughts that a rule could
    stop: the thought itself chose the rung, so easy prompts would stand for all at the lower rungs.

    Raises:
        DatasetError: no decision has both.
    """
    labelled = [row for row in logged if row["correct"] is not None and _of_a_rung(row)]
    with_prompt = [_outcome(row) for row in labelled if row["prompt"] is not None]
    if not labelled:
        raise DatasetError("no decision in the log has an outcome yet")
    if not with_prompt:
        raise DatasetError(
            f"no outcome has a prompt ({len(labelled)} in the log): serve with BUDGET_ROUTER_LOG_PROMPTS=true"
        )
    return pl.DataFrame(with_prompt, SCHEMA)


def _of_a_rung(row: Row) -> bool:
    return row["source"] != UNBUDGETED and row.get("rule") != Rule.STOPPING.value


def _outcome(row: Row) -> dict[str, object]:
    counts = [row[name] for name in ("prompt_tokens", "thinking_tokens", "answer_tokens")]
    known = [count for count in counts if isinstance(count, int)]
    asked = prompt_of(row)
    # A prompt without a conversation is its own group, since nothing links the paraphrases that users send.
    return {
        **{name: row[name] for name in SAME_NAME},
        "messages": None if asked is None else chat_form.to_json(asked),
        "group": row.get("conversation") or row["prompt_id"],
        "backend": str(row["backend"]).partition("/")[0],
        "model": row["backend"],
        "sample_id": 0,
        "total_tokens": sum(known) if len(known) == len(counts) else None,
        "finish": row["finish"] or "unknown",
        "observed_at": pl.Series([row["decided_at"]]).str.to_datetime(time_zone="UTC").item(),
    }


@click.group(cls=Group)
def outcomes() -> None:
    """Read the outcome log."""


@outcomes.command()
@outcome_log
@click.option("--out", type=NewFile(), required=True, help="Parquet file to write.")
@json_output
def export(log: str, out: Path, as_json: bool) -> None:
    """Write the decisions that have an outcome as Parquet, one row each, with their propensities."""
    exported = frame(read(log))
    try:
        write(exported, out)
    except OSError as error:
        raise click.BadParameter(str(error), param_hint="--out") from error
    counts = {"file": str(out), "outcomes": len(exported), "rungs": dict(exported["rung"].value_counts().iter_rows())}
    click.echo(json.dumps(counts) if as_json else f"{counted(len(exported), 'outcome')}: {out}")
