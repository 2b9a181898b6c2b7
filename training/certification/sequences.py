"""The policies that are tested for relative targets, in the order of their tests.

The loss on a prompt is D = Y_top - Y_chosen, in -1..1. Two sequences of policies are tested side by side, each at half
of delta. *Learned prices*: the policy with price v takes for each prompt the rung with the largest predicted
P(correct) - v * cost, the Lagrangian form of "fewest tokens at no more than this mean loss". Price 0 is nearly
always-top; a higher price trades more quality for tokens. *Fixed rungs*: everybody gets the same rung. Of the policies
that both sequences certify, the one that spends fewer tokens is served.

Callers may ask that the target holds by each prompt's own forecast. *Predicted losses* is for them alone, so it does
not share delta with the others: it has a delta of its own. Its policy takes the smallest rung whose predicted loss is
at most a threshold, from gains of .2 up to the target itself. It saves less, since the loss of one prompt cannot be
made up for by another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import numpy as np

from router.domain import Certificate
from router.stopping.rules import StoppingCertificate, StoppingRule
from training.arrays import Rows, Rungs, Vector
from training.certification.betting import DELTA, Groups, betting_p_value, fixed_sequence_test, without_loss
from training.certification.pooling import family, pools
from training.certification.rules import TIE, choose, constant, losses, price_grid, smallest
from training.data.outcomes import Outcomes
from training.data.splits import LABELLED, SPLITS
from training.prediction import Prediction

THRESHOLDS = tuple(np.round(np.arange(-0.2, 0.1001, 0.0025), 4).tolist())
"""Predicted losses that are accepted per prompt, most careful first; each target's sequence ends at the target."""

SHARE = DELTA / 2
"""What learned prices may spend of DELTA. Fixed rungs have the other half, which they share equally with each kind of
rule that stops within the thought, so that learned prices lose nothing by them."""

LOST = 0.5
"""Guess of the share of differing answers of which one is right and the other wrong."""

Sample = tuple[Outcomes, Prediction]
"""A split, and the predictions for its prompts."""


@dataclass(frozen=True, eq=False)
class CandidatePolicy:
    """A policy that may be certified: a price, a largest predicted loss, or one rung for everybody.

    Attributes:
        values: its losses by group, in the order of bets.
        tokens: its mean cost on the certify split, by which certified policies are compared.
        saved: mean cost that it saves there against always-top.
        threshold: the price, or the largest predicted loss.
        variance: that of its losses on the fit split; None where that is not known.
        tie: within which rungs are worth the same.
        chosen: the rungs [prompts] that it takes, of each split whose labels it is tested on.
    """

    values: Vector
    tokens: float
    saved: float
    threshold: float = 0.0
    rung: int | None = None
    variance: float | None = None
    tie: float = 0.0
    chosen: tuple[Rungs, ...] = ()

    def certificate(self, alpha: float) -> Certificate:
        """Its certificate. A fixed rung's price is the one at which its saving is worth a loss of `alpha`."""
        threshold = self.threshold if self.rung is None else alpha / self.saved if self.saved > 0 else 0.0
        return Certificate(alpha, DELTA, threshold, len(self.values), self.rung, self.tie)


@dataclass(frozen=True, eq=False)
class StoppingPolicy(CandidatePolicy):
    """A rule that stops within the thought; `tokens` are those of the thought and of all probes.

    Attributes:
        probes: tokens of all probes, on average.
    """

    rule: StoppingRule = field(kw_only=True)
    probes: float = field(kw_only=True)

    def stopping(self, alpha: float) -> StoppingCertificate:
        """Its certificate for a largest mean loss."""
        return StoppingCertificate(alpha, DELTA, self.rule, len(self.values), self.tokens - self.probes, self.probes)


@dataclass(frozen=True)
class PolicySequence:
    """Policies in the order of their tests.

    Attributes:
        labels: share of a file's groups on whose labels they are tested.
        delta: level of the tests.
        tasks: family of tasks of each group, where a policy must pass a test in every family; empty = one test of all.
        drawn: positions of the groups that the one test of all is about, in the order of bets; None = of every group.
    """

    name: str
    policies: Sequence[CandidatePolicy]
    labels: float = SPLITS["certify"]
    delta: float = SHARE
    tasks: tuple[str, ...] = ()
    drawn: Rows | None = None

    def at(self, share: float) -> "PolicySequence":
        """The same tests at that share of their level."""
        return replace(self, delta=self.delta * share)

    def proved(self, alpha: float) -> CandidatePolicy | str:
        """The boldest policy that is proved to lose at most `alpha`, or the reason why there is none.

        Where there are tasks, in every one of them. Their tests need not share delta: a policy that loses too much in
        one task passes only if it passes there (intersection-union test, Berger 1982).
        """
        parts = self.parts(alpha)
        p_values = (self._p_value(one, alpha, parts) for one in self.policies)
        last, why = fixed_sequence_test(p_values, self.policies, self.delta)
        if last is not None:
            return last
        return why if not parts or not self.policies else f"{why} in {self.worst(alpha)[0]!r}"

    def parts(self, alpha: float) -> dict[str, Rows]:
        """Positions of groups by family of tasks, small ones pooled; none where there is one test of all."""
        return pools(self.tasks, without_loss(alpha, self.delta)) if self.tasks else {}

    def worst(self, alpha: float) -> tuple[str, Vector]:
        """The part in which the most careful policy is least proved, and its losses there; "" where there are none."""
        careful, parts = self.policies[0], self.parts(alpha)
        if not parts:
            return "", careful.values
        name = max(parts, key=lambda one: self._p_value(careful, alpha, {one: parts[one]}))
        return name, careful.values[parts[name]]

    def _p_value(self, policy: CandidatePolicy, alpha: float, parts: dict[str, Rows]) -> float:
        values = policy.values if self.drawn is None else policy.values[self.drawn]
        every = [policy.values[rows] for rows in parts.values()] or [values]
        return max(betting_p_value(values, alpha, self.delta, policy.variance) for values in every)

    def pending(self, alpha: float) -> CandidatePolicy | None:
        """The policy after `proved` if its test ended where a label is missing; None if the test was decided."""
        last = self.proved(alpha)
        tested = 0 if isinstance(last, str) else self.policies.index(last) + 1
        waits = tested < len(self.policies) and bool(np.isnan(self.policies[tested].values).any())
        return self.policies[tested] if waits else None


def cheapest(sequences: Sequence[PolicySequence], alpha: float) -> CandidatePolicy | str:
    """The policy that spends least among those proved to lose at most `alpha`, or why there is none."""
    proved = [sequence.proved(alpha) for sequence in sequences]
    certified = [one for one in proved if not isinstance(one, str)]
    if certified:
        return min(certified, key=attrgetter("tokens"))
    return "; ".join(f"{sequence.name}: {why}" for sequence, why in zip(sequences, proved, strict=True))


def shared(
    fixed: PolicySequence, learned: PolicySequence, stopping: Sequence[PolicySequence]
) -> tuple[PolicySequence, PolicySequence, list[PolicySequence]]:
    """The same sequences, which spend no more than DELTA together."""
    return replace(fixed, delta=SHARE / (1 + len(stopping))), learned, beside_fixed(stopping)


def beside_fixed(stopping: Sequence[PolicySequence]) -> list[PolicySequence]:
    """Sequences of rules that stop within the thought, which share half of DELTA with fixed rungs."""
    return [replace(one, delta=SHARE / (1 + len(stopping))) for one in stopping]


def policy_sequences(
    held_out: Sample, fitted: Sample | None = None, per_task: bool = False
) -> tuple[PolicySequence, PolicySequence]:
    """Fixed rungs, and learned prices. Arguments as `certify`."""
    fixed, learned = fixed_rungs(held_out, fitted), learned_prices(held_out, fitted)
    return (by_task(fixed, held_out, fitted), by_task(learned, held_out)) if per_task else (fixed, learned)


def by_task(sequence: PolicySequence, *samples: Sample | None) -> PolicySequence:
    """The same tests, made in every family of tasks. Args: samples: those on whose labels the sequence is tested."""
    every = [part for part, _ in filter(None, samples)]
    names = {g: family(task) for part in every for g, task in zip(part.groups, part.tasks, strict=True)}
    return replace(sequence, tasks=tuple(names[group] for group in Groups([*names]).names))


def fixed_rungs(held_out: Sample, fitted: Sample | None = None) -> PolicySequence:
    """One rung for everybody, from the longest below the top downwards, on all labels. Arguments as `certify`."""
    outcomes, _ = held_out
    every = [held_out] if fitted is None else [held_out, fitted]
    groups = Groups([group for part, _ in every for group in part.groups])
    policies = []
    for rung in reversed(range(len(outcomes.ladder) - 1)):
        chosen = [constant(rung, predicted) for _, predicted in every]
        lost = [losses(part.correct, one) for (part, _), one in zip(every, chosen, strict=True)]
        values = groups.means(np.concatenate(lost))
        policies.append(_candidate(held_out, tuple(chosen), values, rung=rung))
    return PolicySequence("fixed rungs", policies, LABELLED)


def learned_prices(held_out: Sample, fitted: Sample | None = None) -> PolicySequence:
    """The rung that is worth most to the prompt, from price 0 upwards. Arguments as `certify`."""
    _, prediction = held_out
    grid = price_grid(prediction.cost)
    policies = _by_threshold(
        grid, lambda one, price: choose(one.quality, one.cost, price, one.far, TIE), held_out, fitted
    )
    return PolicySequence("learned prices", [replace(one, tie=TIE) for one in policies])


def predicted_losses(alpha: float, held_out: Sample, fitted: Sample | None = None) -> PolicySequence:
    """The smallest rung that a prompt is predicted to lose little at, up to `alpha`. Arguments as `certify`."""
    grid = [threshold for threshold in THRESHOLDS if threshold <= alpha]
    policies = _by_threshold(grid, lambda one, threshold: smallest(one.quality, threshold, one.far), held_out, fitted)
    return PolicySequence("predicted losses", policies, delta=DELTA)


def _by_threshold(
    grid: Sequence[float],
    rule: Callable[[Prediction, float], Rungs],
    held_out: Sample,
    fitted: Sample | None,
) -> list[CandidatePolicy]:
    outcomes, prediction = held_out
    groups, policies = Groups(outcomes.groups), []
    for threshold in grid:
        chosen, variance = rule(prediction, threshold), None
        if fitted is not None:
            variance = _variance(fitted[0], rule(fitted[1], threshold))
        values = groups.means(losses(outcomes.correct, chosen))
        policies.append(_candidate(held_out, (chosen,), values, threshold=threshold, variance=variance))
    return policies


def _variance(outcomes: Outcomes, chosen: Rungs) -> float:
    """Variance of the losses on the fit split; where labels may be missing, a guess that reads the answers alone.

    Bets that started from the labels at hand would be another test each time that there are more of them.
    """
    if outcomes.same is None:
        return float(losses(outcomes.correct, chosen).var())
    return LOST * float(1 - outcomes.same[np.arange(len(chosen)), chosen].mean())


def _candidate(held_out: Sample, chosen: tuple[Rungs, ...], values: Vector, **policy: Any) -> CandidatePolicy:
    outcomes, prediction = held_out
    cost = outcomes.thinking_tokens if outcomes.known_tokens.all() else prediction.cost
    tokens = float(cost[np.arange(len(chosen[0])), chosen[0]].mean())
    return CandidatePolicy(values, tokens, float(cost[:, -1].mean()) - tokens, chosen=chosen, **policy)
