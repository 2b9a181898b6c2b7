"""Rules that stop within the thought, and what is certified of them.

A rule thinks from rung to rung. Behind every cut a short answer is probed, and the rule says whether that answer may be
given. A thought that ends by itself is answered at once, and so is one that reaches the top rung.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from router.stopping.evidence import Evidence


@dataclass(frozen=True, slots=True)
class AgreeRule:
    """Stop when the answer is the same as at the `matches` cuts before; `first` is the first rung that is probed."""

    first: int
    matches: int


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """Stop when the mean log-probability of the probe's tokens is at least `least_logprob`.

    `first` is the first rung that is probed.
    """

    first: int
    least_logprob: float


@dataclass(frozen=True, slots=True)
class LearnedRule:
    """Stop when no later rung is worth its tokens, by the bundle's second graph.

    `first` is the first rung that is probed, `price` the P(correct) that a further token must buy.
    """

    first: int
    price: float


StoppingRule = AgreeRule | ThresholdRule | LearnedRule


@dataclass(frozen=True, slots=True)
class StoppingCertificate:
    """With probability 1 - delta over the calibration data, the rule loses at most alpha.

    The loss is against the answer at the top of the same thought, on average over prompts.

    Attributes:
        prompts: calibration prompts.
        thinking_tokens, probe_tokens: means over these prompts.
        agreement: alpha bounds the share of answers that differ from the top's, and with it the loss.
    """

    alpha: float
    delta: float
    rule: StoppingRule
    prompts: int
    thinking_tokens: float
    probe_tokens: float
    agreement: bool = False

    def checkpoints(self, rungs: int) -> tuple[int, ...]:
        """Positions at which the rule looks on a ladder of so many rungs: from its first probe on, below the top."""
        return tuple(range(self.rule.first, rungs - 1))


class Lookahead(Protocol):
    """Predicts from the evidence at a cut what stopping there and going on would give."""

    def ahead(self, position: int, evidence: Evidence) -> tuple[Sequence[float], Sequence[float]]:
        """P(correct) at every rung, and the tokens until there with those of probes; both mean nothing before the cut.

        Args:
            position: the rung at which the thought is cut.

        Raises:
            ClassifierError: the graph fails.
        """
        ...


def stops(rule: StoppingRule, position: int, evidence: Evidence, lookahead: Lookahead | None = None) -> bool:
    """Whether a rule gives the answer that was probed at a rung below the top.

    `training.stopping.rules` has the same for tables; tests/training/stopping/test_rules.py holds the two equal.

    Args:
        position: of the rung.
        evidence: of the cuts from the rule's first probe to this one.
        lookahead: what a learned rule asks; without it such a rule never stops.
    """
    if position < rule.first or evidence.key is None:
        return False
    match rule:
        case AgreeRule():
            return evidence.stood >= rule.matches
        case ThresholdRule():
            return evidence.mean_logprob is not None and evidence.mean_logprob >= rule.least_logprob
        case LearnedRule():
            return lookahead is not None and _worth_stopping(rule.price, position, *lookahead.ahead(position, evidence))


def _worth_stopping(price: float, position: int, quality: Sequence[float], more: Sequence[float]) -> bool:
    worth = [q - price * tokens for q, tokens in zip(quality[position:], more[position:], strict=True)]
    return worth[0] >= max(worth)
