"""What one request says about every rung: the answer that was served, beside those behind cuts of the same thought.

No text is needed to learn from it: the classifier's inputs are extracted at once, and hashes name the prompts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.domain import BudgetLadder

Inputs = NDArray[np.float32]

MODEL = "judge"
"""The judge of evidence that a model has judged, which may overlook losses."""

PEOPLE = "people"
"""The judge of evidence that people have judged, who are trusted as a verifier is."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One request that was answered at the top rung.

    Attributes:
        decision_id: of the decision, by which its caller reports an outcome.
        at: when it was answered, in seconds since 1970.
        engine: fingerprint of the engine that answered.
        ladder: the rungs that were tried; the last one was served.
        prompt: keyed hash of what was asked.
        group: keyed hash of the conversation, or of the prompt where there is none.
        inputs: hand features and the vector of the embedding [width].
        thinking_tokens: by rung.
        same: the answer equals the one that was served, by rung; the last one always does.
        judged: how right the answers are by a verifier, a judge or people, 0..1 by rung; None = not asked.
        judge: "verifier", MODEL or PEOPLE; "" = nobody was asked.
        spent_tokens: tokens that the other answers and the judge have cost.
        reported: how right the served answer is by its caller, 0..1; None = not reported yet.
        kept: messages and answers as JSON, where texts may be kept; "" elsewhere.
        features: version of `inputs`; evidence of another version cannot be fitted together with it.
        tenant: keyed hash of the tenant that asked.
    """

    decision_id: str
    at: float
    engine: str
    ladder: BudgetLadder
    prompt: str
    group: str
    inputs: Inputs
    thinking_tokens: tuple[int, ...]
    same: tuple[bool, ...]
    judged: tuple[float | None, ...]
    judge: str = ""
    spent_tokens: int = 0
    reported: float | None = None
    kept: str = ""
    features: str = ""
    tenant: str = ""

    @property
    def trusted(self) -> bool:
        """A verifier or people have judged, who may also find the answer behind a shorter thought the better one."""
        return self.judge not in ("", MODEL)

    def losses(self, judge_misses: float = 0.0) -> tuple[float, ...]:
        """The most that each rung may have lost against the answer that was served, by rung.

        Equal answers lose nothing. Of others, what a verifier or people found both answers worth is the loss, whatever
        the caller reports: negative where the answer behind a shorter thought is the better one, as in a mean of right
        answers. Elsewhere what the caller, or a judge, has said bounds the loss, and without a word it is 1. The
        bounds fall as reports come in; only a report that is taken back raises one.

        Args:
            judge_misses: share of the true losses that a judge does not see, at least 0 and below 1. A loss that it
                sees counts 1 / (1 - share), so that the mean is not too small, and a gain counts nothing.
        """
        return tuple(
            0.0 if same else self._worst(judged, judge_misses)
            for same, judged in zip(self.same, self.judged, strict=True)
        )

    def _worst(self, judged: float | None, judge_misses: float) -> float:
        """The most that another answer than the served one may have lost."""
        most = 1.0 if self.reported is None else self.reported
        if judged is None:
            return most
        top = self.judged[-1]
        if self.judge != MODEL:
            # A report would take away losses that were seen, and leave the gains: false ones could certify anything.
            return min(most, 1.0 - judged) if top is None else top - judged
        loss = (1.0 if top is None else top) - judged
        # What stands for losses that were not seen must not be cut off at 1.
        return max(0.0, loss) / (1 - judge_misses) if most else 0.0
