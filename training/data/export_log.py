"""`budget-router outcomes export`: what the outcome log knows, as a file of the outcome schema."""

import json
from collections.abc import Iterable
from pathlib import Path

import click
import polars as pl

from router.errors import RouterError
from router.outcomes import redis, sqlite
from router.outcomes.rows import Row
from training.data.schema import SCHEMA, DatasetError, write

DEFAULT = "var/outcomes.sqlite"


def read(log: str) -> Iterable[Row]:
    """Rows of an outcome log: a file, or the URL of a Redis. Raises OutcomeLogError, SettingsError."""
    return redis.read_rows(log) if "://" in log else sqlite.read_rows(Path(log))


def frame(logged: Iterable[Row]) -> pl.DataFrame:
    """Rows with an outcome and a prompt, in the outcome schema. Raises DatasetError where there is none."""
    labelled = [row for row in logged if row["correct"] is not None]
    kept = [_outcome(row) for row in labelled if row["prompt"] is not None]
    if not labelled:
        raise DatasetError("no decision in the log has an outcome yet")
    if not kept:
        raise DatasetError(
            f"{len(labelled)} outcomes, and no prompt beside them: serve with BUDGET_ROUTER_LOG_PROMPTS=true"
        )
    return pl.DataFrame(kept, SCHEMA)


def _outcome(row: Row) -> dict[str, object]:
    counted = [row[name] for name in ("prompt_tokens", "thinking_tokens", "answer_tokens")]
    known = [count for count in counted if isinstance(count, int)]
    told = {name: row[name] for name in ("prompt", "prompt_id", "model_version", "rung", "rung_order", "budget_tokens")}
    told |= {name: row[name] for name in ("correct", "label_source", "thinking_tokens", "propensity", "decision_id")}
    return {
        **{name: value for name, value in told.items() if name in SCHEMA},
        "group": row["prompt_id"],
        "backend": str(row["backend"]).partition("/")[0],
        "model": row["backend"],
        "sample_id": 0,
        "total_tokens": sum(known) if len(known) == len(counted) else None,
        "finish": row["finish"] or "unknown",
        "observed_at": pl.Series([row["decided_at"]]).str.to_datetime(time_zone="UTC").item(),
    }


@click.group()
def outcomes() -> None:
    """What the outcome log knows."""


@outcomes.command()
@click.option("--log", default=DEFAULT, show_default=True, help="File or Redis URL of the outcome log; may be in use.")
@click.option("--out", type=Path, required=True, help="Parquet file to write.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def export(log: str, out: Path, as_json: bool) -> None:
    """Write the decisions that have an outcome as Parquet, one row each, with their propensities."""
    try:
        found = frame(read(log))
        write(found, out)
    except (DatasetError, RouterError, OSError) as error:
        raise _BadInput(str(error)) from error
    told = {"file": str(out), "outcomes": len(found), "rungs": dict(found["rung"].value_counts().iter_rows())}
    click.echo(json.dumps(told) if as_json else f"{len(found)} outcomes: {out}")


class _BadInput(click.ClickException):
    exit_code = 2
