"""Test of the guarantee: certificates on random re-splits of held-out prompts, against the true loss on the pool."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from training.arrays import Mask, Rungs, Vector
from training.data.dataset import Outcomes
from training.evaluation.certify import DELTA, betting_p_value, choose, fixed_sequence_test, losses, price_grid
from training.prediction import Prediction

RESPLITS = 500
CERTIFY = 1_000
"""Groups that a re-split certifies on; half of the pool if that is less."""


@dataclass(frozen=True)
class Violation:
    """One target over all re-splits.

    Attributes:
        certify: groups that each re-split certifies on.
        violated: share of re-splits whose certified policy loses more than alpha on the pool.
        violated_unseen: the same share on prompts that the re-split did not certify on, whose mean is noisy itself.
        uncertified: share of re-splits in which nothing could be proved.
        utilisation: mean saving of the certified policy / saving of the best price in hindsight; None without tokens.
    """

    alpha: float
    delta: float
    resplits: int
    certify: int
    violated: float
    violated_unseen: float
    uncertified: float
    utilisation: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def resplit(pool: Outcomes, prediction: Prediction, alpha: float, resplits: int = RESPLITS) -> Violation:
    """Certify on random groups of a pool, again and again.

    Args:
        pool: prompts that were not fitted on; its mean loss stands for the true one.
        prediction: for the prompts of the pool.
        alpha: the largest mean loss allowed.
    """
    prices = price_grid(prediction.cost)
    chosen = [choose(prediction.quality, prediction.cost, price, prediction.far) for price in prices]
    groups, of = np.unique(np.asarray(pool.groups), return_inverse=True)
    sizes = np.bincount(of)
    # Choices by price never change, so group losses are computed once and a re-split only picks columns.
    lost = np.array([np.bincount(of, losses(pool.correct, c)) / sizes for c in chosen])
    saved = _saved(pool, chosen)
    size = min(CERTIFY, len(groups) // 2)
    random = np.random.default_rng(0)
    certified = []
    for _ in tqdm(range(resplits), desc=f"re-splits, loss {alpha:g}", leave=False, disable=None):
        order = random.permutation(len(groups))
        mine, rest = order[:size], order[size:]
        price, _why = fixed_sequence_test((betting_p_value(values[mine], alpha) for values in lost), prices)
        certified.append((-1 if price is None else prices.index(price), rest))
    return Violation(
        alpha,
        DELTA,
        resplits,
        size,
        float(np.mean([i >= 0 and lost[i].mean() > alpha for i, _ in certified])),
        float(np.mean([i >= 0 and lost[i, rest].mean() > alpha for i, rest in certified])),
        float(np.mean([i < 0 for i, _ in certified])),
        _utilisation(saved, lost.mean(axis=1) <= alpha, [i for i, _ in certified]),
    )


def _saved(pool: Outcomes, chosen: list[Rungs]) -> Vector | None:
    """Share of always-top's tokens saved [prices]."""
    if not pool.known_tokens.all():
        return None
    rows, tokens = np.arange(len(pool)), pool.thinking_tokens
    return np.array([1 - tokens[rows, c].sum() / tokens[:, -1].sum() for c in chosen])


def _utilisation(saved: Vector | None, allowed: Mask, certified: list[int]) -> float | None:
    if saved is None or not allowed.any() or saved[allowed].max() <= 0:
        return None
    mean = float(np.mean([saved[i] if i >= 0 else 0.0 for i in certified]))
    return mean / float(saved[allowed].max())
