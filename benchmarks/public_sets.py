"""Converts public outcome sets to the project's schema in memory; it never writes their prompt texts here."""

from pathlib import Path

import polars as pl

from training.data.schema import SCHEMA
from training.data.splits import prompt_id

FOLDER = Path("../shared/data")
JHU = ("none", "concise_cot", "cot", "long_cot")
EFFORTS = ("low", "medium", "high", "xhigh")
TTS = {
    "FRAMES and SimpleQA, Gemini": "gemini",
    "FRAMES and SimpleQA, Claude": "claude",
    "FRAMES and SimpleQA, GPT-5 mini": "gpt5mini",
}


def converted() -> dict[str, pl.DataFrame]:
    """Outcome records by name of set: models on exam questions and on factual ones, with and without budgets."""
    jhu = pl.read_parquet(FOLDER / "jhu_concise_cot.parquet").with_columns(
        task=pl.col("dataset").str.split("/").list.last(), thinking=pl.col("total_tokens")
    )
    facts = pl.read_parquet(FOLDER / "epoch_hub_open.parquet").with_columns(
        task=pl.lit("simpleqa"), thinking=pl.col("reasoning_tokens")
    )
    chess = facts.filter(pl.col("dataset") == "chess_puzzles").with_columns(task=pl.lit("chess"))
    mmlu = pl.read_parquet(FOLDER / "s1_global_mmlu_half.parquet").with_columns(
        task=pl.col("category"), kind=pl.col("lang"), thinking=pl.col("thinking_tokens"), answers=pl.col("total_tokens")
    )
    simple = facts.filter((pl.col("dataset") == "simpleqa_verified") & pl.col("model").str.contains("gpt-5.2-"))
    return {
        "JHU, GPT-4": outcomes(jhu.filter(pl.col("model") == "gpt-4"), JHU),
        "JHU, GPT-3.5": outcomes(jhu.filter(pl.col("model") == "gpt-35-turbo"), JHU),
        "SimpleQA, GPT-5.2": outcomes(simple, EFFORTS),
        "Chess puzzles, GPT-5.2": outcomes(chess.filter(pl.col("model").str.contains("gpt-5.2-")), EFFORTS[:3]),
        "Chess puzzles, Opus 4.6": _budgets(chess.filter(pl.col("model").str.contains("opus-4-6"))),
        "Global-MMLU (half), s1.1-32B": _budgets(mmlu),
        **{name: pl.read_parquet(FOLDER / f"tts_knowledge_{file}.parquet") for name, file in TTS.items()},
    }


def with_answers() -> dict[str, pl.DataFrame]:
    """Those of which the answer at every rung is known, so that rules within the thought can be replayed."""
    return {name: rows for name, rows in converted().items() if "answer" in rows.columns and rows["answer"].count()}


def _budgets(rows: pl.DataFrame) -> pl.DataFrame:
    """Outcome records of numbered budgets; a question has the same group in every language.

    Budgets are hints: thoughts exceed those that were forced by a few words, and those of providers by more. Rung 0 of
    s1.1 is the model that it was made from.
    """
    rows = rows.with_columns(effort=pl.col("budget_tokens").cast(pl.String))
    return outcomes(rows, tuple(str(budget) for budget in sorted(rows["budget_tokens"].unique())))


def outcomes(rows: pl.DataFrame, efforts: tuple[str, ...]) -> pl.DataFrame:
    """Outcome records of one model, without prompts that lack an effort and without rows that lack a label."""
    texts = {text: prompt_id(text) for text in rows["prompt"].unique()}
    rows = rows.filter(pl.col("effort").is_in(efforts) & pl.col("correct").is_not_null()).with_columns(
        prompt_id=pl.col("prompt").replace_strict(texts, return_dtype=pl.String)
    )
    complete = pl.col("effort").n_unique().over("prompt_id") == len(efforts)
    order = pl.col("effort").replace_strict({name: i for i, name in enumerate(efforts)}, return_dtype=pl.Int32)
    return rows.filter(complete).select(
        "prompt",
        "prompt_id",
        pl.col("group") if "group" in rows.columns else pl.col("prompt_id").alias("group"),
        "task",
        pl.col("kind") if "kind" in rows.columns else pl.lit(None, pl.String).alias("kind"),
        pl.lit("recorded").alias("backend"),
        "model",
        pl.col("effort").alias("rung"),
        order.alias("rung_order"),
        "budget_tokens",
        pl.lit(None, pl.String).alias("trace_id"),
        pl.int_range(pl.len(), dtype=pl.Int32).over("prompt_id", "effort").alias("sample_id"),
        pl.col("correct").cast(pl.Float64),
        pl.lit("verifier").alias("label_source"),
        pl.col("thinking").cast(pl.Float64).round().cast(pl.Int64).alias("thinking_tokens"),
        (pl.col("answers") if "answers" in rows.columns else pl.lit(None, pl.Int64)).alias("total_tokens"),
        pl.col("finish") if "finish" in rows.columns else pl.lit("natural").alias("finish"),
        pl.col("answer") if "answer" in rows.columns else pl.lit(None, pl.String).alias("answer"),
        pl.lit(None, pl.Float64).alias("propensity"),
        pl.lit(None, pl.String).alias("decision_id"),
        pl.lit(None, SCHEMA["observed_at"]).alias("observed_at"),
    )
