"""How good a bundle's choices are on prompts it has not seen: calibration, and savings against two baselines."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from router.domain import Certificate
from training.certify import choose
from training.dataset import Outcomes

BINS = 15

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class RungReport:
    """One rung on the test split: accuracy and mean thinking tokens, and how good the predictions are."""

    rung: str
    accuracy: float
    thinking_tokens: float
    calibration_error: float
    auroc: float | None


@dataclass(frozen=True)
class PolicyReport:
    """The router at one certificate on the test split.

    Attributes:
        loss: accuracy of always-top less the router's.
        saved_against_top: share of always-top's thinking tokens that were not spent.
        saved_against_hull: the same against the cheapest mix of fixed rungs of equal accuracy; None where the
            router is more accurate than any mix.
    """

    alpha: float
    threshold: float
    accuracy: float
    loss: float
    thinking_tokens: float
    saved_against_top: float
    saved_against_hull: float | None


@dataclass(frozen=True)
class Report:
    """Everything about a test split."""

    prompts: int
    rungs: list[RungReport]
    policies: list[PolicyReport]
    never_solved: float

    def to_json(self) -> dict[str, object]:
        """Plain types."""
        return asdict(self)


def evaluate(outcomes: Outcomes, quality: Matrix, certificates: tuple[Certificate, ...]) -> Report:
    """Judge predicted `quality` [prompts, rungs] and its certificates on outcomes of the test split."""
    return Report(
        len(outcomes),
        [_rung(outcomes, quality, i) for i in range(len(outcomes.ladder))],
        [_policy(outcomes, quality, certificate) for certificate in certificates],
        float((outcomes.correct.max(axis=1) == 0).mean()),
    )


def calibration_error(correct: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Expected calibration error over BINS bins of equal mass (Nixon et al. 2019)."""
    bins = np.array_split(np.argsort(predicted, kind="stable"), BINS)
    gaps = [abs(correct[b].mean() - predicted[b].mean()) * len(b) for b in bins if len(b)]
    return float(sum(gaps) / len(predicted))


def hull_tokens(tokens: NDArray[np.float64], accuracy: NDArray[np.float64], wanted: float) -> float | None:
    """Fewest mean tokens with which a random mix of fixed rungs reaches `wanted`; None where none does."""
    if wanted > accuracy.max():
        return None
    best = np.inf
    for i in range(len(tokens)):
        for j in range(len(tokens)):
            if accuracy[i] >= wanted:
                best = min(best, tokens[i])
            elif accuracy[j] >= wanted:
                share = (wanted - accuracy[i]) / (accuracy[j] - accuracy[i])
                best = min(best, tokens[i] + share * (tokens[j] - tokens[i]))
    return float(best)


def _rung(outcomes: Outcomes, quality: Matrix, index: int) -> RungReport:
    correct, predicted = outcomes.correct[:, index], quality[:, index]
    both = 0 < (correct >= 0.5).mean() < 1
    return RungReport(
        outcomes.ladder.rungs[index].name,
        float(correct.mean()),
        float(outcomes.thinking_tokens[:, index].mean()),
        calibration_error(correct, predicted),
        float(roc_auc_score(correct >= 0.5, predicted)) if both else None,
    )


def _policy(outcomes: Outcomes, quality: Matrix, certificate: Certificate) -> PolicyReport:
    rows, chosen = np.arange(len(outcomes)), choose(quality, certificate.threshold)
    accuracy, tokens = outcomes.correct[rows, chosen].mean(), outcomes.thinking_tokens[rows, chosen].mean()
    per_rung = outcomes.thinking_tokens.mean(axis=0)
    hull = hull_tokens(per_rung, outcomes.correct.mean(axis=0), accuracy)
    return PolicyReport(
        certificate.alpha,
        certificate.threshold,
        float(accuracy),
        float(outcomes.correct[:, -1].mean() - accuracy),
        float(tokens),
        float(1 - tokens / per_rung[-1]),
        None if not hull else float(1 - tokens / hull),
    )
