"""Stopping rules in the order of their tests, for certificates.

Agreement and thresholds learn nothing, so they are tested on the labels of the fit split, too, as fixed rungs are. The
orders were fixed before any label was read. The boldest rules are not always the riskiest: where a model talks itself
out of right answers, stopping early gains accuracy, and a rule that gains needs fewer labels than one that changes
nothing. So the order of agreement begins with three answers in a row, not with the rule that stops latest.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from router.stopping.rules import AgreeRule, LearnedRule, StoppingRule, ThresholdRule
from training.arrays import Mask, Matrix
from training.certification.betting import Groups
from training.certification.rules import price_grid
from training.certification.sequences import PolicySequence, StoppingPolicy
from training.data.splits import LABELLED
from training.stopping.learned import Lookahead, features
from training.stopping.rules import Stops, fixed, follow, walk
from training.stopping.traces import NO_ANSWER, Traces

AGREEMENTS = (AgreeRule(0, 2), AgreeRule(1, 1), AgreeRule(0, 1))
PROBABILITIES = (0.99, 0.98, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5)
"""Geometric means of the probabilities of a probe's tokens, most careful first."""


@dataclass(frozen=True)
class TraceSample:
    """A split of the traces.

    Attributes:
        quality: P(correct) by the text alone [traces, rungs], by a model that has not seen the prompt.
        far: traces of prompts unlike those that were certified, which go to the top [traces].
    """

    traces: Traces
    quality: Matrix | None = None
    far: Mask | None = None

    def joined(self, other: "TraceSample") -> "TraceSample":
        """The traces of both, which must have text forecasts, or lack them, alike."""
        return TraceSample(
            self.traces.joined(other.traces),
            _stacked(self.quality, other.quality),
            _stacked(self.far, other.far),
        )

    def stops(self, rule: StoppingRule, lookahead: Lookahead | None = None) -> Stops:
        """Where the router stops: prompts that are far go to the top, and are not probed."""
        return self._without_far(follow(self.traces, rule, lookahead, self.quality))

    def learned_stops(self, lookahead: Lookahead, prices: Sequence[float]) -> Iterator[Stops]:
        """The same for the learned rule at every price, from one look at the evidence."""
        quality, answered = lookahead.quality(features(self.traces, self.quality)), self.traces.answers != NO_ANSWER
        for price in prices:
            yield self._without_far(walk(self.traces, lookahead.stopping(quality, price) & answered, 0))

    def _without_far(self, stopped: Stops) -> Stops:
        return stopped if self.far is None else stopped.where(~self.far, fixed(self.traces, -1))


def _stacked(one: Any, other: Any) -> Any:
    return None if one is None or other is None else np.concatenate([one, other])


def stopping_sequences(
    held_out: TraceSample, fitted: TraceSample | None, lookahead: Lookahead | None
) -> list[PolicySequence]:
    """One sequence for each kind of rule that the traces have evidence for.

    Args:
        held_out: the certify split.
        fitted: the fit split; None = test on the held-out labels alone.
        lookahead: what was learned from the fit split; None = too little to learn from.
    """
    traces = held_out.traces
    sequences = []
    if traces.has_answers:
        below = [rule for rule in AGREEMENTS if rule.first + rule.matches < len(traces.ladder) - 1]
        sequences.append(_parameterless("agreement", below, held_out, fitted))
    if traces.has_logprobs:
        thresholds = [ThresholdRule(1, math.log(p)) for p in PROBABILITIES]
        sequences.append(_parameterless("thresholds", thresholds, held_out, fitted))
    if traces.has_answers and lookahead is not None:
        sequences.append(_learned(lookahead, held_out, fitted))
    return sequences


def _parameterless(
    name: str, rules: Sequence[StoppingRule], held_out: TraceSample, fitted: TraceSample | None
) -> PolicySequence:
    every = held_out if fitted is None else held_out.joined(fitted)
    groups = Groups(every.traces.groups)
    policies = []
    for rule in rules:
        values = groups.means(every.stops(rule).losses(every.traces))
        policies.append(_policy(rule, held_out.stops(rule), held_out.traces, values))
    return PolicySequence(name, policies, LABELLED)


def _learned(lookahead: Lookahead, held_out: TraceSample, fitted: TraceSample | None) -> PolicySequence:
    groups, policies = Groups(held_out.traces.groups), []
    prices = price_grid((fitted or held_out).traces.thinking_tokens)
    variances: list[float | None] = [None] * len(prices)
    if fitted is not None:
        known = fitted.learned_stops(lookahead, prices)
        variances = [float(stopped.losses(fitted.traces).var()) for stopped in known]
    for price, variance, stopped in zip(prices, variances, held_out.learned_stops(lookahead, prices), strict=True):
        values = groups.means(stopped.losses(held_out.traces))
        policies.append(_policy(LearnedRule(0, price), stopped, held_out.traces, values, variance))
    return PolicySequence("learned stopping", policies)


def _policy(
    rule: StoppingRule, stopped: Stops, traces: Traces, values: Matrix, variance: float | None = None
) -> StoppingPolicy:
    tokens = float(stopped.spent.mean())
    saved = float(traces.thinking_tokens[:, -1].mean()) - tokens
    return StoppingPolicy(values, tokens, saved, variance=variance, rule=rule, probes=float(stopped.probes.mean()))
