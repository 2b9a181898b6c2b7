"""Certified bundles: a round's graph with what its tests have proved, and its way into the registry."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from router.bundle import manifest, registry
from router.bundle.manifest import Bundle, Manifest
from router.domain import Certificate
from router.learning.status import Saving
from router.scoring import trial as trial_of
from training.arrays import Rows, Rungs
from training.certification.betting import DELTA
from training.certification.certify import ALPHAS, loss_target
from training.certification.rules import certified_rungs
from training.data.outcomes import Outcomes
from training.evaluation import evaluate
from training.evaluation.spending import Spending
from training.export import reissue
from training.learning.pieces import Pieces
from training.learning.rounds import Round
from training.learning.trials import FEW, Record, Trial
from training.prediction import Prediction
from training.trained import policy_figures

LEARNED = "learned"
"""Key of a manifest's metrics by which a bundle is known that was learned while serving."""

MARGIN = 0.01
"""Share of the tokens by which another bundle must save more: swaps are not free, and estimates vary."""


@dataclass(frozen=True)
class Candidate:
    """A round with the certificates that its graph can have, by target; of each target the policy that spends least.

    Attributes:
        outcomes: of the first pieces of all groups, on which savings are compared: forecasts choose, not losses.
        rounds: number of the round that proved each certificate; that of fixed rungs where it is about one of these.
    """

    round: Round
    outcomes: Outcomes
    prediction: Prediction
    certificates: dict[float, Certificate]
    rounds: dict[float, int]

    def tokens(self, certificate: Certificate | None) -> float:
        """Mean thinking tokens under a certificate; None = always the top rung."""
        return _tokens(self.outcomes, certified_rungs(certificate, self.prediction))

    def rank(self, alpha: float) -> tuple[bool, float, int]:
        """How good it is at a target: the greatest is the best one. The newest of equals."""
        within = [one for one in self.certificates if one <= alpha]
        covered = max(within or self.certificates, default=None)
        certificate = None if covered is None else self.certificates[covered]
        return bool(within), -self.tokens(certificate), self.round.number

    def saving(self, certificate: Certificate) -> Saving | None:
        """What a certificate saves; None where the top rung spends nothing."""
        return saving_of(self.outcomes, certified_rungs(certificate, self.prediction))


def candidate(pieces: Pieces, one: Round, trials: Sequence[Trial], record: Record) -> Candidate:
    """A round with the best certificates of itself and of fixed rungs.

    Args:
        trials: those of the round, and of fixed rungs.
    """
    first = pieces.take(pieces.tests(after=0))
    bare = Candidate(one, first.outcomes, one.predict(first.inputs), {}, {})
    for alpha in ALPHAS:
        proved = [(record.certificate(each, alpha, pieces.agreement), each.number) for each in trials]
        found = [(certificate, number) for certificate, number in proved if certificate is not None]
        if found:
            best = min(found, key=lambda each: bare.tokens(each[0]))
            bare.certificates[alpha], bare.rounds[alpha] = best
    return bare


def saving_of(outcomes: Outcomes, chosen: Rungs) -> Saving | None:
    """What chosen rungs [prompts] save; None where the top rung spends nothing."""
    at_top, rows = float(outcomes.thinking_tokens[:, -1].mean()), np.arange(len(outcomes))
    if at_top == 0:
        return None
    spent = outcomes.thinking_tokens[rows, chosen]
    share, (low, high) = Spending(outcomes, outcomes.correct[rows, chosen], spent).saved_against_top()
    return Saving(share, low, high, share * at_top)


def is_issued(best: Candidate, directory: Path) -> bool:
    """True if the bundle in a directory has these certificates."""
    if not (directory / manifest.MANIFEST).exists():
        return False
    own = manifest.load(directory).manifest
    same = own.metrics.get(LEARNED) == best.round.number
    return same and [_promise(one) for one in own.certificates] == [_promise(one) for one in _ordered(best)]


def issue(best: Candidate, pieces: Pieces, directory: Path) -> None:
    """Write a round's bundle with its certificates and a report to a directory, and replace the bundle there.

    Raises:
        ArtifactError, OSError: it cannot be written.
    """
    certificates = _ordered(best)
    rows = pieces.tests(best.round.after)
    outcomes, prediction = _sample(best, pieces, rows)
    report = evaluate.evaluate(outcomes, prediction, certificates)
    own = manifest.load(best.round.bundle).manifest
    refused = {loss_target(alpha): "not proved yet" for alpha in ALPHAS if alpha not in best.certificates}
    counts = {"fit": best.round.fitted, "test": len(rows)}
    metrics = own.metrics | {LEARNED: best.round.number, "prompts": counts, "policies": policy_figures(report)}
    certified = replace(own, certificates=certificates, not_certified=refused, metrics=metrics)
    about = {
        "model": own.backend_fingerprint,
        "label_sources": ["evidence of served requests"],
        "fitted": f"{own.created_at:%Y-%m-%d}",
        "ladder": [rung.name for rung in own.ladder.rungs],
        "splits": counts,
        "data": {"file": "evidence of served requests"},
        "certificates": [asdict(one) for one in certificates],
        "delta": DELTA,
        "not_certified": refused,
    }
    reissue(best.round.bundle, certified, directory, report.to_json() | {"about": about})


def promote(
    folder: Path, directory: Path, alpha: float, suspended: Callable[[str], bool] = lambda version: False
) -> bool:
    """Promote the bundle in `directory` to the registry in `folder` where it replaces the current one.

    It does where the current one is about another engine, is suspended, or saves less, at the target or, with as much
    there, at another one.

    Args:
        alpha: the target.
        suspended: whether the bundle of a digest was refuted.

    Returns:
        True if it is the current bundle now.

    Raises:
        ArtifactError: the registry or a bundle in it cannot be used.
    """
    new, current = manifest.load(directory), current_in(folder)
    if current is not None and current.version == new.version:
        return True
    if current is not None and not (suspended(current.version) or _replaces(new, current, alpha)):
        return False
    registry.promote(folder, directory, trial_of.run)
    return True


def current_in(folder: Path) -> Bundle | None:
    """The current bundle of a registry; None where nothing was promoted yet. Raises ArtifactError."""
    if registry.is_empty(folder):
        return None
    registry.history(folder)
    return manifest.load(registry.locate(folder))


def _replaces(new: Bundle, current: Bundle, alpha: float) -> bool:
    own, other = new.manifest, current.manifest
    if other.foreign_to(own.backend_fingerprint):
        return True
    gains = {one: _saved(own, one) - _saved(other, one) for one in ALPHAS}
    return gains[alpha] > -MARGIN and max(gains.values()) > MARGIN


def _saved(own: Manifest, alpha: float) -> float:
    """Share of the top rung's tokens that is saved at a target, as the manifest has it."""
    figures: list[dict[str, Any]] = own.metrics.get("policies", [])
    return max((one["top"] or 0.0 for one in figures if one["alpha"] <= alpha), default=0.0)


def _sample(best: Candidate, pieces: Pieces, rows: Rows) -> tuple[Outcomes, Prediction]:
    """What has tested the round, where that is enough to report on, else all groups."""
    if len(rows) < FEW:
        return best.outcomes, best.prediction
    tested = pieces.take(rows)
    return tested.outcomes, best.round.predict(tested.inputs)


def _ordered(best: Candidate) -> tuple[Certificate, ...]:
    return tuple(best.certificates[alpha] for alpha in sorted(best.certificates))


def _promise(one: Certificate) -> tuple[float, int | None, float]:
    """What a certificate serves. The price of a fixed rung only weighs savings, and moves with each piece."""
    return one.alpha, one.rung, 0.0 if one.rung is not None else one.threshold


def _tokens(outcomes: Outcomes, chosen: Rungs) -> float:
    return float(outcomes.thinking_tokens[np.arange(len(outcomes)), chosen].mean())
