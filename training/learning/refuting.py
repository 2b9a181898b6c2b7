"""Bets against the certificates of a bundle, on evidence that came after it.

A certificate says that the mean loss is at most alpha. While that holds, no bet on more gains on average, so a capital
that begins at 1 ever reaches 1 / DELTA with probability at most DELTA (Ville), whenever one looks.

- The bets are constant, so the capital grows with every loss. Until a loss is settled, the least that it may turn out
  to be counts: the capital so far is then at most that of the settled losses, and what holds for that holds for it.
- A gambler who has seen a thousand good answers has no capital left for the bad ones that come then. So further
  gamblers enter at fixed places with shares of one capital. Those whose first evidence was pruned are left out, which
  can only make it less.
"""

import numpy as np

from router.bundle.manifest import Bundle
from router.outcomes.e_process import DELTA
from training.arrays import Matrix, Rows, Vector
from training.certification.delta import share
from training.certification.rules import certified_rungs
from training.learning.pieces import Pieces
from training.model import inference

BETS = (0.25, 0.5, 0.95)
"""Shares of the largest possible bet, a third of the capital on each. The largest wins soonest where nothing is gained;
the smallest where answers behind a cut are often worse and nearly as often better."""

ENTRY = 100
"""Pieces of evidence from one gambler to the next."""


def refuted(pieces: Pieces, bundle: Bundle, after: int, oldest: int) -> bool:
    """True if the evidence behind number `after` refutes what a bundle certifies.

    Where all certificates are true, it does so with probability at most DELTA, however often it is asked.

    Args:
        oldest: number of the oldest piece of any kind that is still there.
    """
    rows, certificates = pieces.tests(after), bundle.manifest.certificates
    if not (len(rows) and certificates) or bundle.manifest.ladder != pieces.kind.ladder:
        return False
    prediction = inference.of_head(bundle, pieces.inputs[rows])
    chosen = np.stack([certified_rungs(one, prediction) for one in certificates], axis=1)
    if prediction.far is not None:  # these get the top rung, also where everybody else gets the same one
        chosen[prediction.far] = len(pieces.kind.ladder) - 1
    losses = np.take_along_axis(pieces.settled_losses[rows], chosen, axis=1)
    entered = entries(pieces.numbers[rows] - after, oldest - after)
    wealth = log_wealth(losses, np.array([one.alpha for one in certificates]), entered)
    return bool(wealth.max() >= -np.log(DELTA))


def log_wealth(losses: Matrix, alphas: Vector, entered: Vector) -> Vector:
    """Logarithm of the capital after each piece of evidence [pieces].

    Args:
        losses: under each certificate, -1 at least [pieces, certificates].
        alphas: what the certificates promise, by which the capital is divided evenly [certificates].
        entered: shares of the capital that enter before each piece [pieces].
    """
    # The largest gain must not cost all: below 1 / (1 + alpha) the capital stays positive.
    bets = np.array(BETS)[:, None] / (1 + alphas)
    gains = np.log1p(bets[:, None] * (losses - alphas))
    capital = np.cumsum(gains, axis=1)
    with np.errstate(divide="ignore"):  # where nobody enters
        before = np.log(entered)[:, None] - (capital - gains)
    every = capital + np.logaddexp.accumulate(before, axis=1)
    return np.asarray(np.logaddexp.reduce(every, axis=(0, 2)) - np.log(bets.size))


def entries(places: Rows, oldest: int) -> Vector:
    """Shares of the capital with which gamblers enter before each piece [pieces].

    Args:
        places: of the pieces, from 1 on, ascending [pieces].
        oldest: place of the oldest piece that is still there.
    """
    turns = (places - 1) // ENTRY
    shares = np.array([share(1 + turn) for turn in range(turns[-1] + 1)])
    shares[: max(0, -((1 - oldest) // ENTRY))] = 0.0
    return np.diff(np.cumsum(shares)[turns], prepend=0.0)
