"""Does the guarantee hold? Certificates on many random re-splits of held-out prompts, against the truth of the pool."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.dataset import Outcomes
from training.evaluation.certify import DELTA, betting_p_value, choose, fixed_sequence_test, losses, price_grid
from training.prediction import Prediction

RESPLITS = 500
CERTIFY = 1_000
"""Groups that a re-split certifies on, or half of the pool where that is less."""


@dataclass(frozen=True)
class Violation:
    """One target over all re-splits.

    Attributes:
        violated: share of re-splits whose certified policy loses more than alpha on the whole pool.
        violated_unseen: the same on the prompts that the re-split did not certify on, whose mean is itself noisy.
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
    """Certify on random groups of a pool that was not fitted on; predictions are of the pool."""
    prices = price_grid(prediction.cost)
    chosen = [choose(prediction.quality, prediction.cost, price) for price in prices]
    groups, of = np.unique(np.asarray(pool.groups), return_inverse=True)
    sizes = np.bincount(of)
    lost = np.array([np.bincount(of, losses(pool.correct, c)) / sizes for c in chosen])
    saved = _saved(pool, chosen)
    size = min(CERTIFY, len(groups) // 2)
    random = np.random.default_rng(0)
    found = []
    for _ in tqdm(range(resplits), desc=f"re-splits, loss {alpha:g}", leave=False, disable=None):
        order = random.permutation(len(groups))
        mine, rest = order[:size], order[size:]
        price, _why = fixed_sequence_test((betting_p_value(values[mine], alpha) for values in lost), prices)
        found.append((-1 if price is None else prices.index(price), rest))
    proved = [(i, rest) for i, rest in found if i >= 0]
    return Violation(
        alpha,
        DELTA,
        resplits,
        size,
        float(np.mean([i >= 0 and lost[i].mean() > alpha for i, _ in found])),
        float(np.mean([i >= 0 and lost[i, rest].mean() > alpha for i, rest in found])),
        1 - len(proved) / resplits,
        _utilisation(saved, lost.mean(axis=1) <= alpha, [i for i, _ in found]),
    )


def _saved(pool: Outcomes, chosen: list[NDArray[np.intp]]) -> NDArray[np.float64] | None:
    """Share of always-top's tokens saved, by price."""
    if not pool.known_tokens.all():
        return None
    rows, tokens = np.arange(len(pool)), pool.thinking_tokens
    return np.array([1 - tokens[rows, c].sum() / tokens[:, -1].sum() for c in chosen])


def _utilisation(saved: NDArray[np.float64] | None, allowed: NDArray[np.bool_], found: list[int]) -> float | None:
    if saved is None or not allowed.any() or saved[allowed].max() <= 0:
        return None
    mean = float(np.mean([saved[i] if i >= 0 else 0.0 for i in found]))
    return mean / float(saved[allowed].max())
