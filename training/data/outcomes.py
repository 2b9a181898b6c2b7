"""Outcomes by prompt and rung: one conversation per prompt, and a few numbers per prompt and rung."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.domain import BudgetLadder, Prompt
from training.arrays import Mask, Matrix, Rows, Rungs, Vector


@dataclass(frozen=True)
class Outcomes:
    """Outcomes by prompt and rung.

    Attributes:
        model: fingerprint of the backend that answered; behind it, rungs that another model answered.
        correct: mean correctness [prompts, rungs], 0..1.
        thinking_tokens: mean thinking tokens used [prompts, rungs]; NaN where none is recorded.
        samples: answers averaged [prompts, rungs].
        halves: mean correctness of the even and of the odd samples [2, prompts, rungs]; NaN for an empty half.
        label_sources: who said what is correct.
        total_tokens: mean thinking and answer tokens [prompts, rungs]; NaN where none is recorded.
        same: answers that are the top rung's, so that nothing is lost whatever is right [prompts, rungs]; None unless
            labels may be missing.
        kinds: the kind of each prompt, such as a language, by which reports have a table; None where none is named.
    """

    model: str
    ladder: BudgetLadder
    prompts: list[Prompt]
    tasks: list[str]
    groups: list[str]
    correct: Matrix
    thinking_tokens: Matrix
    samples: NDArray[np.int64]
    halves: Matrix
    label_sources: tuple[str, ...] = ("verifier",)
    total_tokens: Matrix | None = None
    same: Mask | None = None
    kinds: list[str] | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def known_tokens(self) -> Mask:
        """Rungs whose token counts are recorded for every prompt [rungs]."""
        return np.asarray(np.isfinite(self.thinking_tokens).all(axis=0))

    @property
    def known_totals(self) -> bool:
        """True if the tokens of thought and answer are recorded for every prompt and rung."""
        return self.total_tokens is not None and bool(np.isfinite(self.total_tokens).all())

    def totals_at(self, chosen: Rungs) -> Vector | None:
        """All tokens of chosen rungs [prompts]; None where they are not recorded."""
        if self.total_tokens is None or not self.known_totals:
            return None
        return self.total_tokens[np.arange(len(self)), chosen]

    def take(self, rows: Rows) -> "Outcomes":
        """The outcomes of the prompts at `rows`, in that order."""
        return Outcomes(
            self.model,
            self.ladder,
            [self.prompts[i] for i in rows],
            [self.tasks[i] for i in rows],
            [self.groups[i] for i in rows],
            self.correct[rows],
            self.thinking_tokens[rows],
            self.samples[rows],
            self.halves[:, rows],
            self.label_sources,
            None if self.total_tokens is None else self.total_tokens[rows],
            None if self.same is None else self.same[rows],
            None if self.kinds is None else [self.kinds[i] for i in rows],
        )


def concatenate(one: Outcomes, other: Outcomes) -> Outcomes:
    """The prompts of both tables, which must be of the same model and ladder."""
    return Outcomes(
        one.model,
        one.ladder,
        one.prompts + other.prompts,
        one.tasks + other.tasks,
        one.groups + other.groups,
        np.concatenate([one.correct, other.correct]),
        np.concatenate([one.thinking_tokens, other.thinking_tokens]),
        np.concatenate([one.samples, other.samples]),
        np.concatenate([one.halves, other.halves], axis=1),
        tuple(sorted({*one.label_sources, *other.label_sources})),
        None
        if one.total_tokens is None or other.total_tokens is None
        else np.concatenate([one.total_tokens, other.total_tokens]),
        kinds=None if one.kinds is None or other.kinds is None else one.kinds + other.kinds,
    )
