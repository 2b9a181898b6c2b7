"""A file of outcomes, in which each prompt stands bare and in some conversations.

The outcomes of a conversation are those of its bare prompt. That is a replay: it assumes that what stands around a
question does not change what the question needs. Each conversation is in the group of its bare prompt, and so on the
same side of a split. Templates, words and documents of the fit split occur in no other split.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import polars as pl

from router import chat_form
from training.data.faults import faults
from training.data.schema import DatasetError, conformed, naming_file, write
from training.data.splits import identity, split_of
from training.wrapping.kinds import BARE, KINDS, THANKS, Side, wrapped

EACH, SEED = 2, 22
"""Conversations of a prompt, and the seed, of the file that the embedded bundle is fitted on."""

TABLE = pl.Schema(
    {"of": pl.String(), "prompt_id": pl.String(), "prompt": pl.String(), "messages": pl.String(), "kind": pl.String()}
)


def wrap(path: Path, out: Path, each: int = EACH, seed: int = SEED, kinds: Sequence[str] = tuple(KINDS)) -> int:
    """Write the outcomes of a file with those of `each` conversations a prompt; returns how many there are.

    Args:
        kinds: names in KINDS, of which each prompt gets different ones.

    Raises:
        DatasetError: the file has a fault, or conversations.
    """
    with naming_file(path):
        rows = pl.scan_parquet(path)
        for fault in faults(rows, soft=True):
            raise DatasetError(fault)
        metadata = {name: value for name, value in pl.read_parquet_metadata(path).items() if name != "ARROW:schema"}
        found = conversations(rows, each, seed, kinds)
        write(joined(rows, found), out, metadata)
    return len(found)


def conversations(
    rows: pl.LazyFrame, each: int = EACH, seed: int = SEED, kinds: Sequence[str] = tuple(KINDS)
) -> pl.DataFrame:
    """The conversations made of the prompts of some rows, with the columns of TABLE; `of` is the bare prompt's id.

    Raises:
        DatasetError: some of the rows are conversations.
    """
    rows = conformed(rows)
    solved = pl.col("correct").min().fill_null(0) == 1
    prompts = rows.group_by("prompt_id").agg(pl.col("prompt", "messages", "group").first(), solved.alias("easy"))
    found = prompts.sort("prompt_id").collect(engine="streaming")
    if found["messages"].count():
        raise DatasetError("column messages: only bare prompts can be wrapped")
    made = [
        (name, *one)
        for name, prompt, _, group, easy in found.iter_rows()
        for one in _conversations(name, prompt, group, each, seed, [k for k in kinds if easy or k != THANKS])
    ]
    return pl.DataFrame(made, TABLE, orient="row")


def joined(rows: pl.LazyFrame, found: pl.DataFrame) -> pl.LazyFrame:
    """The rows themselves, and those of the conversations made of their prompts."""
    bare = conformed(rows)
    replaced = (
        bare.drop("prompt", "messages", "kind")
        .rename({"prompt_id": "of"})
        .join(found.lazy(), on="of", maintain_order="left_right")
    )
    return pl.concat([bare.with_columns(kind=pl.lit(BARE)), conformed(replaced)])


def _conversations(
    name: str, prompt: str, group: str, each: int, seed: int, kinds: Sequence[str]
) -> Iterator[tuple[str, str, str | None, str]]:
    """prompt_id, prompt, messages and kind of each."""
    seen, drawn = split_of(group) == "fit", _random(seed, name, "kinds")
    for kind in drawn.sample(kinds, min(each, len(kinds))):
        made = wrapped(prompt, kind, Side(_random(seed, name, kind), seen))
        yield identity(made), made.text, chat_form.to_json(made), kind


def _random(*of: object) -> Random:
    """Random numbers that depend on these alone, whatever else a file holds."""
    return Random(hashlib.sha256("\0".join(map(str, of)).encode()).digest())
