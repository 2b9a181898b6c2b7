"""Certificates by Learn-then-Test (Angelopoulos et al. 2021) with a fixed sequence of policies.

Relative targets. The policy with price v takes for each prompt the rung with the largest predicted
P(correct) - v * cost: the Lagrangian form of "fewest tokens at no more than this mean loss". Price 0 is nearly
always-top; a higher price trades more quality for tokens. The loss on a prompt is D = Y_top - Y_chosen, in -1..1.

Absolute targets. Of the prompts that a policy claims to answer with quality q, at most 1 - q may be wrong (selective
risk). The policy takes the smallest rung with P(correct) >= threshold; a higher threshold is more careful.

In both cases policies are tested from the most careful one on, until one fails. The last policy that passed is
certified: with probability 1 - delta over the calibration data its true mean loss is at most alpha. The prompts of a
group are not independent, so losses are averaged within groups first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from router.domain import DEFAULT_MAX_LOSS, Certificate
from training.arrays import Mask, Matrix, Rungs, Vector
from training.data.dataset import Outcomes

ALPHAS = (0.005, 0.01, 0.02, 0.05, 0.1)
QUALITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
TARGET = DEFAULT_MAX_LOSS
"""The loss that callers who name no target allow, at which methods are compared, too."""

DELTA = 0.1
PRICES = tuple(float(f"{price:.4g}") for price in (0.0, *np.geomspace(1e-3, 3.0, 160)))
"""P(correct) that the mean cost of the top rung must buy, most careful first; fixed before any label is read."""

MARGINS = tuple(np.round(np.arange(0.2, -0.0001, -0.01), 4).tolist())
"""Margins added to an absolute target, most careful first."""


@dataclass(frozen=True)
class Proofs:
    """The certificates that could be proved.

    Attributes:
        refused: the other targets in words, each with the reason.
    """

    relative: tuple[Certificate, ...]
    absolute: tuple[Certificate, ...]
    refused: dict[str, str]


def loss_target(alpha: float) -> str:
    """The name of a relative target among those that were refused."""
    return f"loss of at most {alpha:g}"


def quality_target(quality: float) -> str:
    """The name of an absolute target among those that were refused."""
    return f"quality of at least {quality:g}"


def choose(quality: Matrix, cost: Matrix, price: float, far: Mask | None = None) -> Rungs:
    """The serving rule: the rung [prompts] with the largest quality - price * cost, the cheapest of equals.

    Prompts unlike the certified ones get the top rung, where they lose nothing.

    It is CARROT's plug-in rule, too (arXiv 2502.03261). `router.routing.policy` decides one prompt by the same rule,
    and `plan.replay.served_rungs` adds deadlines; tests/training/test_decision_rule.py holds the three equal.

    Args:
        quality: predicted P(correct) [prompts, rungs].
        cost: predicted cost [prompts, rungs], in any unit.
        price: P(correct) that a unit of cost must buy.
        far: prompts unlike the certified ones [prompts].
    """
    best: Rungs = (quality - price * cost).argmax(axis=1)
    return best if far is None else np.where(far, quality.shape[1] - 1, best)


def losses(correct: Matrix, chosen: Rungs) -> Vector:
    """D of every prompt: correctness at the top rung minus correctness at the chosen one."""
    return correct[:, -1] - correct[np.arange(len(correct)), chosen]


def betting_p_value(values: Vector, alpha: float, delta: float = DELTA) -> float:
    """p-value of the hypothesis "E[D] > alpha" by betting (Waudby-Smith & Ramdas 2024, section 4).

    A gambler bets on x = (D + 1) / 2, in 0..1, that its mean is below the bound. Each bet depends on earlier values
    only, so under the hypothesis the capital is a supermartingale that starts at 1. By Ville's inequality it ever
    reaches c with probability at most 1 / c, so 1 / (largest capital) is a p-value.

    Args:
        values: D in -1..1, in an order that does not depend on them.
        alpha: the largest mean loss allowed.
        delta: level at which the bets aim; any value keeps the p-value valid.
    """
    if len(values) == 0:
        return 1.0
    # Bets follow the variance so far, from a prior of mean 1/2 and variance 1/4: a small variance allows bold bets.
    x, bound = (values + 1) / 2, (alpha + 1) / 2
    n = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (n + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (n + 1)
    past = np.concatenate(([0.25], variance[:-1]))
    # Capital must stay positive whatever comes: a bet below 1 / (1 - bound) does not lose everything on x = 1.
    bets = np.minimum(np.sqrt(2 * np.log(1 / delta) / (len(x) * past)), 0.75 / (1 - bound))
    capital = np.cumsum(np.log1p(bets * (bound - x)))
    return float(np.exp(-max(capital.max(), 0.0)))


def certify(outcomes: Outcomes, quality: Matrix, cost: Matrix, seed: int = 0, far: Mask | None = None) -> Proofs:
    """Certificates for ALPHAS and QUALITIES from the certify split.

    Args:
        outcomes: the certify split, which nothing was fitted or chosen on.
        quality: predicted P(correct) [prompts, rungs].
        cost: predicted cost [prompts, rungs], in any unit.
        seed: of the order in which groups are bet on.
        far: prompts unlike these [prompts]: they get the top rung, and no absolute target claims them.
    """
    groups = Groups(outcomes.groups, seed)
    prices = price_grid(cost)
    by_price = [groups.means(losses(outcomes.correct, choose(quality, cost, price, far))) for price in prices]
    refused, relative, absolute = {}, [], []
    for alpha in ALPHAS:
        last, why = fixed_sequence_test((betting_p_value(values, alpha) for values in by_price), prices)
        if last is None:
            refused[loss_target(alpha)] = why
        else:
            relative.append(Certificate(alpha, DELTA, last, len(groups)))
    claimed = quality if far is None else np.where(far[:, None], 0.0, quality)
    for wanted in QUALITIES:
        proof = _absolute(outcomes, claimed, wanted, groups)
        if isinstance(proof, str):
            refused[quality_target(wanted)] = proof
        else:
            absolute.append(proof)
    return Proofs(tuple(relative), tuple(absolute), refused)


def price_grid(cost: Matrix) -> list[float]:
    """PRICES per unit of cost, from predicted costs [prompts, rungs]; labels are not read."""
    top = float(cost[:, -1].mean())
    return [price / top if top > 0 else 0.0 for price in PRICES]


def fixed_sequence_test(p_values: Iterator[float], policies: Sequence[float]) -> tuple[float | None, str]:
    """The last policy before the first whose p-value exceeds DELTA, or None with the reason.

    The order is fixed before labels are read, and testing stops at the first failure. So a policy is falsely certified
    only if the first policy that truly loses too much passes, which has probability at most DELTA: many policies need
    no correction for many tests (Angelopoulos et al. 2021, "fixed sequence testing").

    Args:
        p_values: in the order of `policies`; none is computed after the first failure.
    """
    last = None
    for p_value, policy in zip(p_values, policies, strict=False):
        if p_value > DELTA:
            return last, f"p = {p_value:.2f} for the most careful policy, {DELTA:g} is needed"
        last = policy
    return last, "no policy to test"


class Groups:
    """Averages over groups, in a random order that is the same for every policy.

    The order is random because betting is sequential: in file order, similar prompts would follow each other.
    """

    def __init__(self, groups: Sequence[str], seed: int) -> None:
        _, self._of = np.unique(np.asarray(groups), return_inverse=True)
        self._sizes = np.bincount(self._of)
        self._order = np.random.default_rng(seed).permutation(len(self._sizes))

    def __len__(self) -> int:
        return len(self._sizes)

    def means(self, values: Vector, among: Mask | None = None) -> Vector:
        """Group means of `values` [prompts]; `among` restricts them to some prompts and to groups that have one."""
        of, values = (self._of, values) if among is None else (self._of[among], values[among])
        counts = np.bincount(of, minlength=len(self))
        sums = np.bincount(of, values, minlength=len(self))
        order = self._order[counts[self._order] > 0]
        return np.asarray(sums[order] / counts[order])


def _absolute(outcomes: Outcomes, quality: Matrix, wanted: float, groups: Groups) -> Certificate | str:
    # With fewer than log(delta) / log(q) prompts not even an errorless record proves quality q; three times as many
    # leave room for errors.
    enough = int(np.ceil(np.log(DELTA) / np.log(wanted))) * 3
    tests = []
    for threshold in (min(wanted + margin, 0.999) for margin in MARGINS):
        meets = quality >= threshold
        chosen, among = meets.argmax(axis=1), meets.any(axis=1)
        if among.sum() < max(enough, 30):  # the count depends on predictions alone, so skipping spends no error
            continue
        wrong = 1 - outcomes.correct[np.arange(len(chosen)), chosen]
        tests.append((threshold, groups.means(wrong, among)))
    p_values = (betting_p_value(values, 1 - wanted) for _, values in tests)
    last, why = fixed_sequence_test(p_values, [threshold for threshold, _ in tests])
    return why if last is None else Certificate(round(1 - wanted, 6), DELTA, last, len(groups))
