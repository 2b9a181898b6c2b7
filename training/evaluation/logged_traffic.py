"""Logged traffic as training data: one answer a prompt, and the other rungs that its thought reveals."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from router.domain import BudgetLadder, Prompt
from router.outcomes.rows import Row, prompt_of
from training.arrays import Rows, Vector
from training.data.labels import NO_COMPLETION, NO_TEXT, NOT_CHOSEN, STOPPED, unusable
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError
from training.data.splits import identity
from training.evaluation.off_policy import LoggedAnswers
from training.model.fit import caps
from training.prediction import Prediction

ELSEWHERE = "of another backend or ladder"


@dataclass(frozen=True)
class LoggedTraffic:
    """Labelled decisions of one backend and ladder.

    Attributes:
        thinking_tokens: used by the rung that was run [prompts].
        skipped: labelled decisions left out, by reason.
    """

    prompts: list[Prompt]
    logged: LoggedAnswers
    thinking_tokens: Vector
    skipped: dict[str, int]

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, which: Rows) -> "LoggedTraffic":
        """The decisions at `which`, in that order."""
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
        """Outcomes of all rungs: revealed ones from the log, the others from a model (one step of EM).

        Args:
            gold: names the model and the ladder.
            guessed: predictions for these prompts.
        """
        n, rungs = len(self), len(gold.ladder)
        correct, tokens = guessed.quality.copy(), guessed.mean_tokens.copy()
        for b in range(rungs):
            seen = self.logged.revealed(np.full(n, b))
            correct[seen, b] = self.logged.correct[seen]
            known = np.minimum(np.nan_to_num(self.logged.length, nan=np.inf), self.logged.caps[b])
            # A thought of known length uses min(length, cap) at any rung. One that was cut at its own cap would have
            # been cut at every smaller cap as well.
            exact = np.isfinite(self.logged.length) | (self.logged.caps[b] <= self.logged.caps[self.logged.rung])
            tokens[exact, b] = known[exact]
        samples = np.ones((n, rungs), dtype=np.int64)
        halves = np.full((2, n, rungs), np.nan)
        return Outcomes(
            gold.model, gold.ladder, self.prompts, [""] * n, list(self.logged.groups), correct, tokens, samples, halves
        )


def read(rows: Iterable[Row], ladder: BudgetLadder, backend: str) -> LoggedTraffic:
    """The labelled decisions that the policy made for a backend and a ladder, with a prompt and a token count.

    Raises:
        DatasetError: there is no such decision.
    """
    kept, skipped = _kept(rows, ladder, backend)
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items() if count)
        raise DatasetError(f"the log has no labelled decision to learn from ({reasons or 'no outcomes'})")
    most, prompts = caps(ladder), [prompt for row in kept if (prompt := prompt_of(row)) is not None]
    rung = np.array([row["rung_order"] for row in kept], dtype=np.intp)
    tokens = np.array([row["thinking_tokens"] for row in kept], dtype=float)
    # A thought longer than its cap did not end by itself under that cap, whatever the engine reports.
    natural = np.array([row["finish"] == "natural" for row in kept]) & (tokens <= most[rung])
    logged = LoggedAnswers(
        rung,
        np.array([json.loads(str(row["propensities"])) for row in kept], dtype=float),
        np.array([row["correct"] for row in kept], dtype=float),
        np.where(natural, tokens, np.nan),
        [str(row.get("conversation") or identity(prompt)) for row, prompt in zip(kept, prompts, strict=True)],
        most,
    )
    return LoggedTraffic(prompts, logged, tokens, skipped)


def _kept(rows: Iterable[Row], ladder: BudgetLadder, backend: str) -> tuple[list[Row], dict[str, int]]:
    """The labelled rows that can be used, and how many others there are, by reason."""
    kept: list[Row] = []
    skipped = dict.fromkeys((ELSEWHERE, NOT_CHOSEN, STOPPED, NO_TEXT, NO_COMPLETION), 0)
    # Outcomes of another model or ladder say nothing about this one, however alike the prompts are.
    wanted = [[rung.name, rung.tokens] for rung in ladder.rungs]
    for row in rows:
        if row["correct"] is None:
            continue
        if row["backend"] != backend or json.loads(str(row["ladder"])) != wanted:
            skipped[ELSEWHERE] += 1
        elif why := unusable(row):
            skipped[why] += 1
        else:
            kept.append(row)
    return kept, skipped
