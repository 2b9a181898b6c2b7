"""`make long-prompts`: whether prompts that are long as a whole are forecast, on recorded answers of larger models.

"Now" is what a bundle reads. "Whole" reads the first READ characters of each text, and counts nothing around them, as
earlier versions did. Both are hand features alone under one logistic regression, by cross-validation. It forecasts
whether more than the mean share of a prompt's answers are right.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import harness
from benchmarks.conversations import READ
from benchmarks.public_sets import FOLDER
from router.bundle import features
from router.bundle.asking import WHOLE
from router.bundle.normal_form import normal_form
from router.bundle.scored import COUNTS, View, view
from router.domain import Prompt
from training.model.fit import Inputs

PENALTY = 0.01
"""scikit-learn's C: the smallest set has 160 prompts."""

FOLDS, SEED = 5, 3
MOST = 6_000
"""Prompts of the largest set that are read."""


def main() -> None:
    """Print and store the table."""
    table = [_row(name, rows) for name, rows in _sets().items()]
    for row in table:
        print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    harness.written("long_prompts", {"sets": table})


def _sets() -> dict[str, pl.DataFrame]:
    """A prompt and the share of its answers that were right, by set and model."""
    jhu, gym, lineage = (
        pl.read_parquet(FOLDER / f"{name}.parquet")
        for name in ("jhu_concise_cot", "reasoning_gym_eval", "lineage_bench_traces")
    )
    frequent = gym["model"].value_counts(sort=True)["model"][0]
    return {
        "JHU, GPT-4": jhu.filter(pl.col("model") == "gpt-4"),
        "JHU, GPT-3.5": jhu.filter(pl.col("model") == "gpt-35-turbo"),
        f"reasoning-gym, {frequent}": gym.filter(pl.col("model") == frequent),
        "lineage-bench, all models": lineage,
    }


def _row(name: str, rows: pl.DataFrame) -> dict[str, Any]:
    found = rows.group_by("prompt").agg(pl.col("correct").cast(pl.Float64).mean()).sort("prompt")
    found = found.sample(min(MOST, len(found)), shuffle=True, seed=SEED)
    texts, share = found["prompt"].to_list(), found["correct"].to_numpy()
    easy = share > share.mean()
    long = np.array([len(text) > WHOLE for text in texts])
    scored = {way: _forecast(read(texts), easy) for way, read in WAYS.items()}
    of_all = {f"all, {way}": _auroc(easy, one) for way, one in scored.items()}
    of_long = {f"long, {way}": _auroc(easy[long], one[long]) for way, one in scored.items()}
    return {"set": name, "prompts": len(texts), "long": int(long.sum())} | of_all | of_long


def _now(texts: Sequence[str]) -> Inputs:
    return features.of_views([view(Prompt.of(text)) for text in texts])


def _whole(texts: Sequence[str]) -> Inputs:
    alone = (1, 1, *[0] * (len(COUNTS) - 2))
    return features.of_views([View(normal_form(text[:READ]), alone) for text in texts])


WAYS: dict[str, Callable[[Sequence[str]], Inputs]] = {"now": _now, "whole": _whole}
"""What is read of a text, by name."""


def _forecast(inputs: Inputs, easy: Any) -> Any:
    """P(easy) [prompts] by models that have not seen the prompt."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=500))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    return cross_val_predict(model, inputs, easy, cv=folds, method="predict_proba")[:, 1]


def _auroc(easy: Any, forecast: Any) -> float:
    return float(roc_auc_score(easy, forecast))


if __name__ == "__main__":
    main()
