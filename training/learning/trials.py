"""The tests of all rounds for every target, on the evidence so far, and what has passed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from router.bundle.files import replace
from router.domain import Certificate
from training.arrays import Mask, Matrix, Rows, Rungs, Vector
from training.certification.betting import DELTA
from training.certification.certify import ALPHAS
from training.certification.rules import TIE
from training.certification.sequences import SHARE
from training.learning.pieces import Pieces
from training.learning.rounds import Policy, Round, fixed_rungs
from training.learning.tenants import balanced
from training.learning.wealth import Tested, groups_wanted, proved

FEW = 50
"""Groups below which a mean loss says little."""

FIXED = 0
"""Stands for the round of fixed rungs, which learn nothing and are tested from the first piece of evidence on."""

PASSED = "passed.json"


@dataclass(frozen=True)
class Trial:
    """The policies of a round, and their losses on what came after it.

    Attributes:
        number: of the round; FIXED = fixed rungs.
        delta: level of the tests, for each target by itself.
        rows: places of the pieces that test [groups].
        losses: bounds of the losses [groups, policies].
        spent: thinking tokens [groups, policies].
        at_top: thinking tokens at the top rung [groups].
        balanced: what is left where no tenant has more than its share [groups].
    """

    number: int
    fitted: int
    delta: float
    policies: tuple[Policy, ...]
    rows: Rows
    losses: Matrix
    spent: Matrix
    at_top: Vector
    most: float
    balanced: Mask

    @cached_property
    def tested(self) -> dict[float, Tested]:
        """How far its tests have come, by target: on all that came, and where no tenant has more than its share.

        What passes has passed both, so a policy that loses too much in either mix passes with probability `delta`.
        """
        return {alpha: min(self._tested(alpha), key=lambda one: (one.passed, one.wealth)) for alpha in ALPHAS}

    def _tested(self, alpha: float) -> list[Tested]:
        return [proved(losses, alpha, self.delta, self.most) for losses in self._mixes]

    def likely(self, alpha: float) -> Policy | None:
        """The boldest policy that lost no more than a target so far; None where too few groups say so."""
        if len(self.losses) < FEW:
            return None
        within = np.flatnonzero(self.losses.mean(axis=0) <= alpha)
        return self.policies[within[-1]] if len(within) else None

    def wanted(self, alpha: float, passed: int) -> int | None:
        """Further groups until the next policy passes, at the losses seen so far; None = not in sight."""
        if passed == len(self.policies) or len(self.losses) == 0:
            return None
        found = [self._missing(losses[:, passed], alpha) for losses in self._mixes]
        return None if None in found else max(one or 0 for one in found)

    @property
    def _mixes(self) -> list[Matrix]:
        """The losses of all groups; where one tenant has too many of them, also those without what is too much."""
        return [self.losses] if self.balanced.all() else [self.losses, self.losses[self.balanced]]

    def _missing(self, losses: Vector, alpha: float) -> int | None:
        """Groups that will come until as many like these are there as prove the target."""
        needed = groups_wanted(losses, alpha, self.delta, self.most) if len(losses) else None
        return None if needed is None else max(1, round((needed - len(losses)) * len(self.losses) / len(losses)))


def fixed(pieces: Pieces) -> Trial:
    """The trial of fixed rungs, which spends the other half of DELTA than learned prices."""
    policies, rows = fixed_rungs(len(pieces.kind.ladder)), pieces.tests(after=0)
    chosen = np.array([[one.rung or 0 for one in policies]] * len(rows)).reshape(len(rows), len(policies))
    return _trial(pieces, FIXED, 0, SHARE, policies, rows, chosen)


def of_round(pieces: Pieces, one: Round) -> Trial:
    """The trial of a round's policies on what came after it."""
    rows = pieces.tests(one.after)
    if len(rows) == 0:
        chosen = np.zeros((0, len(one.policies)), int)
    else:
        prediction = one.predict(pieces.inputs[rows])
        chosen = np.stack([policy.chosen(prediction) for policy in one.policies], axis=1)
    return _trial(pieces, one.number, one.fitted, one.delta, one.policies, rows, chosen)


def _trial(
    pieces: Pieces,
    number: int,
    fitted: int,
    delta: float,
    policies: tuple[Policy, ...],
    rows: Rows,
    chosen: Rungs,
) -> Trial:
    losses = np.take_along_axis(pieces.losses[rows], chosen, axis=1)
    spent = np.take_along_axis(pieces.thinking_tokens[rows], chosen, axis=1)
    at_top = pieces.thinking_tokens[rows, -1]
    left = balanced(pieces.tenants, rows, pieces.tenant_share)
    return Trial(number, fitted, delta, policies, rows, losses, spent, at_top, pieces.most, left)


@dataclass(frozen=True)
class Pass:
    """Policies of a round that are proved to keep a target.

    Attributes:
        count: how many, from the first one on.
        groups: that had tested them.
    """

    round: int
    alpha: float
    count: int
    groups: int


class Record:
    """What has passed, kept in a file: what was proved once stays proved when its evidence is pruned."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PASSED
        rows = json.loads(self._path.read_text()) if self._path.exists() else []
        self._passed = {(one["round"], one["alpha"]): Pass(**one) for one in rows}

    def add(self, trials: Sequence[Trial]) -> None:
        """Take over what has passed by now. Raises OSError."""
        before = dict(self._passed)
        for trial in trials:
            for alpha, now in trial.tested.items():
                if now.passed > self.count(trial.number, alpha):
                    self._passed[trial.number, alpha] = Pass(trial.number, alpha, now.passed, now.groups)
        if self._passed != before:
            replace(self._path, json.dumps([vars(one) for one in self._passed.values()]))

    def count(self, number: int, alpha: float) -> int:
        """Policies of a round that have passed for a target."""
        found = self._passed.get((number, alpha))
        return 0 if found is None else found.count

    def certificate(self, trial: Trial, alpha: float, agreement: bool) -> Certificate | None:
        """The certificate of the boldest policy of a round that has passed for a target; None where none has."""
        found = self._passed.get((trial.number, alpha))
        if found is None:
            return None
        policy = trial.policies[found.count - 1]
        price, tie = policy.price, TIE
        if policy.rung is not None:
            # As in `CandidatePolicy.certificate`: the price at which its saving is worth a loss of alpha.
            saved = float((trial.at_top - trial.spent[:, found.count - 1]).mean())
            price, tie = (alpha / saved if saved > 0 else 0.0), 0.0
        return Certificate(alpha, DELTA, price, found.groups, policy.rung, tie, agreement)
