"""Which answers to a prompt are one and the same, so that a single label serves all of them.

Answers are the same where their keys are equal, and where their thought ended by itself in the same trace before it was
cut: every larger budget then gives that very answer. A row without a whole answer is wrong, whatever it says.
"""

import polars as pl

WHOLE = ("natural", "forced", "unknown")
"""Values of `finish` of rows with a whole answer."""

NOTHING = ""
"""The identity of a row that has no whole answer; no key is empty."""

TRACE = "trace:"
"""Begins the identity of an answer without a key, which is known by its trace."""

_OF_PROMPT = ("prompt", "messages", "identity")


def identified(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Conformed rows with a column `identity`: equal for the same answers to a prompt, null where nobody knows."""
    trace = ("prompt_id", "sample_id", "trace_id")
    ends = pl.when(pl.col("thinking_ended") == "natural").then(pl.col("rung_order")).min().over(*trace)
    ended = (pl.col("trace_id").is_not_null() & (pl.col("rung_order") >= ends)).fill_null(value=False)
    key = pl.when(pl.col("ended")).then(pl.col("answer")).min().over(*trace)
    of_trace = pl.coalesce(key, pl.concat_str(pl.lit(TRACE), pl.col("trace_id")))
    identity = (
        pl.when(~pl.col("finish").is_in(WHOLE))
        .then(pl.lit(NOTHING))
        .when(pl.col("ended"))
        .then(of_trace)
        .otherwise(pl.col("answer"))
    )
    return rows.with_columns(ended=ended).with_columns(identity=identity).drop("ended")


def with_known_labels(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Identified rows, in which a label of an answer stands in every row of that answer, if labels agree about it."""
    least, most = (one.over(*_OF_PROMPT) for one in (pl.col("correct").min(), pl.col("correct").max()))
    agreed = pl.col("identity").is_not_null() & (least == most)
    known = pl.when(pl.col("identity") == NOTHING).then(0.0).when(agreed).then(least)
    return rows.with_columns(correct=pl.coalesce("correct", known))


def without_agreement(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows without the labels that say only what agrees with the top rung."""
    return rows.with_columns(correct=pl.when(pl.col("label_source").ne_missing("agreement")).then(pl.col("correct")))


def of_cell() -> pl.Expr:
    """All answers of a prompt at a rung in one text; null where one of them is not known."""
    unknown = pl.col("identity").is_null().any()
    return pl.when(~unknown).then(pl.col("identity").sort().str.join("\x1f"))


def compared(cells: pl.DataFrame) -> pl.DataFrame:
    """Cells with their `answers`, and `same` where these are those of the top rung."""
    top = cells.filter(pl.col("rung_order") == pl.col("rung_order").max()).select("prompt_id", top="answers")
    with_top = cells.join(top, on="prompt_id", how="left")
    at_top = pl.col("rung_order") == pl.col("rung_order").max()
    same = at_top | (pl.col("answers") == pl.col("top")).fill_null(value=False)
    return with_top.with_columns(same=same).drop("answers", "top")
