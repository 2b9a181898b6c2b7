"""Rules that stop within the thought, and what is certified of them.

A rule thinks from rung to rung. Behind every cut a short answer is probed, and the rule says whether that answer may be
given. A thought that ends by itself is answered at once, and so is one that reaches the top rung.
"""

from dataclasses import dataclass


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

    `price` is the P(correct) that a further token must buy.
    """

    price: float


StoppingRule = AgreeRule | ThresholdRule | LearnedRule


@dataclass(frozen=True, slots=True)
class StoppingCertificate:
    """With probability 1 - delta over the calibration data, the rule loses at most alpha.

    The loss is against the answer at the top of the same thought, on average over prompts.

    Attributes:
        prompts: calibration prompts.
        thinking_tokens, probe_tokens: means over these prompts.
    """

    alpha: float
    delta: float
    rule: StoppingRule
    prompts: int
    thinking_tokens: float
    probe_tokens: float
