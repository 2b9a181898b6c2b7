"""The choice of a rung, and what is certified about it."""

from dataclasses import dataclass, fields
from enum import Enum
from operator import attrgetter

from router.domain.ladder import BudgetLadder, ReasoningBudget, Score
from router.domain.request import QualityTarget
from router.stopping.rules import StoppingCertificate


@dataclass(frozen=True, slots=True)
class Certificate:
    """With probability 1 - delta over the calibration data, the policy at `threshold` loses at most alpha.

    Attributes:
        alpha: for a relative target, the largest mean loss against the top rung; for an absolute one, the largest
            share of wrong answers among the prompts predicted to meet it. 0..1.
        delta: probability that the statement is wrong, 0..1.
        threshold: for a relative target, the P(correct) that a further thinking token must buy; per prompt, the
            largest predicted loss accepted, below 0 where a gain is asked for; for an absolute target, the smallest
            P(correct) accepted.
        prompts: calibration prompts.
        rung: for a relative target, the position of the rung that every prompt gets; None = the threshold decides.
        tie: for a relative target, the P(correct) within which rungs are worth the same, so that the smallest is taken.
        agreement: for a relative target, alpha bounds the share of answers that differ from the top rung's, and with
            it the loss.
    """

    alpha: float
    delta: float
    threshold: float
    prompts: int
    rung: int | None = None
    tie: float = 0.0
    agreement: bool = False


class Rule(Enum):
    """What chooses: a rung by the text of the prompt, one rung for everybody, or the thought itself as it goes on."""

    TEXT = "text"
    FIXED = "fixed"
    STOPPING = "stopping"


class DecisionSource(Enum):
    """Where a decision came from."""

    CLASSIFIER = "classifier"
    CACHE = "cache"
    OVERRIDE = "override"
    PINNED = "pinned"
    EXPLORE = "explore"
    FALLBACK = "fallback"
    ENGINE_DEFAULT = "engine_default"
    ESCALATED = "escalated"


class Escalation(Enum):
    """Why a conversation went up from its rung."""

    TOOL_FAILED = "tool_failed"
    REPEATED_CALL = "repeated_call"
    TRUNCATED = "truncated"
    UNLIKE = "unlike"


CHOSEN = (DecisionSource.CLASSIFIER, DecisionSource.CACHE, DecisionSource.EXPLORE)
"""Sources of decisions that a policy has made by a score, or that were drawn beside it."""

TEACHES = "explored: the top rung, to learn what shorter thoughts would lose"
"""Reason of a decision that was drawn whatever the prompt is."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The policy's pick: a position on the ladder, and what may be claimed for it.

    Attributes:
        meets_target: this prompt's own forecast meets the target. A certificate promises it on average over prompts.
        stopping: the rule that ends the thought on the way to the rung; None = it gets there unless it ends by itself.
        checkpoints: positions of the rungs at which a stopping rule looks at the answer, also where only the caller
            could do so.
    """

    index: int
    meets_target: bool
    certificate: Certificate | None
    reason: str
    stopping: StoppingCertificate | None = None
    checkpoints: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The choice for one request, as the caller and the outcome log get it.

    Attributes:
        backend: fingerprint of the engine that answers.
        propensities: the probability of each rung at the moment of choice, with no rule that stops the thought. Such a
            rule has the rest of the probability.
        target_relaxation: P(correct) by which the target was relaxed because the service is overloaded.
        escalation: why the conversation went up with this request; None = it did not.
        truncated_characters: those of the conversation whose text was not scored, but counted.
    """

    id: str
    model: str
    backend: str
    ladder: BudgetLadder
    choice: Choice
    target: QualityTarget
    source: DecisionSource
    model_version: str
    score: Score | None
    propensities: tuple[float, ...]
    target_relaxation: float = 0.0
    escalation: Escalation | None = None
    truncated_characters: int = 0

    def renewed(self, id_: str) -> "Decision":
        """The same decision for another request; as `dataclasses.replace`, in a third of its time."""
        return Decision(id_, *_but_id(self))

    @property
    def rung(self) -> ReasoningBudget:
        """The chosen rung."""
        return self.ladder.rungs[self.choice.index]

    @property
    def teaches(self) -> bool:
        """The top rung was drawn to learn from the request, whatever it asks."""
        return self.source is DecisionSource.EXPLORE and self.choice.reason == TEACHES

    @property
    def propensity(self) -> float:
        """The probability of what was decided: its rung, or a thought that a rule may stop."""
        chances = self.propensities
        return chances[self.choice.index] if self.choice.stopping is None else 1 - sum(chances)

    @property
    def rule(self) -> Rule:
        """What chose the rung."""
        if self.choice.stopping is not None:
            return Rule.STOPPING
        proof = self.choice.certificate
        return Rule.FIXED if self.score is None or (proof is not None and proof.rung is not None) else Rule.TEXT

    @property
    def expected_thinking_tokens(self) -> float | None:
        """Thinking tokens forecast; under a stopping rule its mean over the calibration prompts. None = unknown."""
        if self.choice.stopping is not None:
            return self.choice.stopping.thinking_tokens
        return None if self.score is None else self.score.mean[self.choice.index]

    @property
    def predicted_quality(self) -> float | None:
        """P(correct) at the chosen rung; None if nothing was predicted."""
        return None if self.score is None else self.score.quality[self.choice.index]


_but_id = attrgetter(*[field.name for field in fields(Decision)][1:])
