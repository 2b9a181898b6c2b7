"""LoggedAnswers traffic as what can be learned from: one rung a prompt, and what its thought reveals of the others."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.domain import BudgetLadder, DecisionSource
from router.outcomes.rows import Row
from training.data.dataset import Outcomes
from training.data.schema import DatasetError
from training.data.splits import prompt_id
from training.evaluation.off_policy import LoggedAnswers
from training.model.fit import caps
from training.prediction import Prediction

CHOSEN = (DecisionSource.CLASSIFIER.value, DecisionSource.CACHE.value, DecisionSource.EXPLORE.value)
"""Sources of decisions that the policy made; callers' own, and conversations' later ones, say nothing of it."""


REASONS = ("another backend or ladder", "not the policy's choice", "no prompt", "no count")


@dataclass(frozen=True)
class LoggedTraffic:
    """Labelled decisions of one backend and ladder.

    Attributes:
        skipped: labelled decisions left out, by reason.
    """

    prompts: list[str]
    logged: LoggedAnswers
    thinking_tokens: NDArray[np.float64]
    skipped: dict[str, int]

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, which: NDArray[np.intp]) -> "LoggedTraffic":
        """Some of it."""
        old = self.logged
        logged = LoggedAnswers(
            old.rung[which],
            old.propensities[which],
            old.correct[which],
            old.length[which],
            [old.groups[i] for i in which],
            old.caps,
        )
        return LoggedTraffic([self.prompts[i] for i in which], logged, self.thinking_tokens[which], self.skipped)

    def imputed(self, gold: Outcomes, guessed: Prediction) -> Outcomes:
        """Outcomes of all rungs: what is revealed, and what a model guesses of the rest (one step of EM)."""
        n, rungs = len(self), len(gold.ladder)
        correct, tokens = guessed.quality.copy(), guessed.mean_tokens.copy()
        for b in range(rungs):
            seen = self.logged.revealed(np.full(n, b))
            correct[seen, b] = self.logged.correct[seen]
            known = np.minimum(np.nan_to_num(self.logged.length, nan=np.inf), self.logged.caps[b])
            exact = np.isfinite(self.logged.length) | (self.logged.caps[b] <= self.logged.caps[self.logged.rung])
            tokens[exact, b] = known[exact]
        ids = [prompt_id(text) for text in self.prompts]
        samples = np.ones((n, rungs), dtype=np.int64)
        halves = np.full((2, n, rungs), np.nan)
        return Outcomes(gold.model, gold.ladder, self.prompts, [""] * n, ids, correct, tokens, samples, halves)


def read(rows: Iterable[Row], ladder: BudgetLadder, backend: str) -> LoggedTraffic:
    """The labelled, policy-made decisions with a prompt, of a backend and a ladder. Raises DatasetError."""
    kept, skipped = (
        [],
        dict.fromkeys(("another backend or ladder", "not the policy's choice", "no prompt", "no count"), 0),
    )
    wanted = [[rung.name, rung.tokens] for rung in ladder.rungs]
    for row in rows:
        if row["correct"] is None:
            continue
        if row["backend"] != backend or json.loads(str(row["ladder"])) != wanted:
            skipped["another backend or ladder"] += 1
        elif row["source"] not in CHOSEN:
            skipped["not the policy's choice"] += 1
        elif row["prompt"] is None:
            skipped["no prompt"] += 1
        elif row["thinking_tokens"] is None or row["finish"] is None:
            skipped["no count"] += 1
        else:
            kept.append(row)
    if not kept:
        told = ", ".join(f"{count} {reason}" for reason, count in skipped.items() if count)
        raise DatasetError(f"the log has no labelled decision to learn from ({told or 'no outcomes'})")
    most = caps(ladder)
    rung = np.array([row["rung_order"] for row in kept], dtype=np.intp)
    tokens = np.array([row["thinking_tokens"] for row in kept], dtype=float)
    natural = np.array([row["finish"] == "natural" for row in kept]) & (tokens <= most[rung])
    logged = LoggedAnswers(
        rung,
        np.array([json.loads(str(row["propensities"])) for row in kept], dtype=float),
        np.array([row["correct"] for row in kept], dtype=float),
        np.where(natural, tokens, np.nan),
        [prompt_id(str(row["prompt"])) for row in kept],
        most,
    )
    return LoggedTraffic([str(row["prompt"]) for row in kept], logged, tokens, skipped)
