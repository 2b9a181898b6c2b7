"""A challenger from the outcome log and the frozen gold set, promoted only where it is proved to be better.

The log is split by prompt: some of it is fitted on beside the gold set's fit split, the larger part judges. The
challenger must certify on the gold set's certify split, and the lower bound of its doubly robust utility gain over the
bundle that serves must lie above zero. The model that the estimate leans on is calibrated on the gold set's test split,
which nothing else has seen.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.bundle import manifest
from router.bundle.manifest import Bundle
from router.domain import Certificate, MaxLoss
from router.routing.policy import LatencyProfile, Policy
from training import pipeline
from training.data import dataset, export_log
from training.data.dataset import Outcomes
from training.data.splits import split_of
from training.evaluation import logged_traffic
from training.evaluation.certify import choose
from training.evaluation.logged_traffic import LoggedTraffic
from training.evaluation.off_policy import Gain, gain
from training.export import export
from training.model import calibration, embedding, inference
from training.model.families import ModelFamily
from training.model.fit import CANDIDATES, families_named, fit
from training.pipeline import Trained
from training.prediction import Prediction

FEWEST = 500
"""Smallest effective sample that an estimate is believed at."""


@dataclass(frozen=True)
class Verdict:
    """What became of a challenger.

    Attributes:
        refused: why it is not better enough; empty where it is to be promoted.
        gain: None where it could not be estimated.
        tokens: mean thinking tokens that the serving bundle and the challenger would choose on the judging half.
    """

    refused: list[str]
    certificate: Certificate | None
    gain: Gain | None
    tokens: tuple[float, float] | None
    fitted: int
    judged: int
    skipped: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self) | {"promoted": not self.refused}


def retrain(
    log: str, gold: Path, champion: Bundle, out: Path, max_loss: float, candidates: dict[str, ModelFamily] = CANDIDATES
) -> Verdict:
    """Fit a challenger, write it to `out`, and judge it. Raises DatasetError, ExportError, OutcomeLogError."""
    outcomes = dataset.read(gold)
    served = logged_traffic.read(export_log.read(log), outcomes.ladder, outcomes.model)
    mine, judging = split_traffic(served, outcomes)
    challenger = pipeline.train(outcomes, more=_completed(mine, outcomes), candidates=candidates)
    export(
        challenger.fitted,
        outcomes.ladder,
        challenger.proofs,
        outcomes.prompts[: pipeline.SAMPLE],
        out,
        backend_fingerprint=outcomes.model,
        data_hash=manifest.digest(gold),
        metrics=pipeline.summary(challenger),
        report=pipeline.full_report(challenger, {"traffic": len(mine)}, []),
    )
    return judge(challenger, manifest.load(out), champion, judging, max_loss, len(mine))


def split_traffic(served: LoggedTraffic, gold: Outcomes) -> tuple[LoggedTraffic, LoggedTraffic]:
    """What is fitted on, and what judges; prompts of the gold set's certify and test splits are in neither."""
    held = {group for group in gold.groups if split_of(group) != "fit"}
    sides = [None if group in held else split_of(f"traffic:{group}") for group in served.logged.groups]
    fitted = np.array([side in ("certify", "test") for side in sides])
    judging = np.array([side == "fit" for side in sides])
    return served.take(np.flatnonzero(fitted)), served.take(np.flatnonzero(judging))


def _completed(mine: LoggedTraffic, gold: Outcomes) -> Outcomes | None:
    """The traffic's outcomes, unknown rungs filled by a quick fit on the gold set alone."""
    if len(mine) == 0:
        return None
    quick = fit(dataset.splits(gold)["fit"], embedding.static(), candidates=families_named(["pooled logit"]))
    return mine.imputed(gold, quick.predict(mine.prompts))


def judge(
    challenger: Trained, bundle: Bundle, champion: Bundle, judging: LoggedTraffic, max_loss: float, fitted: int
) -> Verdict:
    """Is the challenger certified, and worth more than the champion on traffic that it was not fitted on?"""
    certificate = _certificate(bundle, max_loss)
    if certificate is None:
        why = "; ".join(f"{target}: {reason}" for target, reason in bundle.manifest.not_certified.items())
        refused = [f"nothing is certified for a loss of at most {max_loss:g} ({why})"]
        return Verdict(refused, None, None, None, fitted, len(judging), judging.skipped)
    predicted = inference.predict(bundle, judging.prompts)
    new = choose(predicted.quality, predicted.cost, certificate.threshold)
    old = chosen_by(champion, judging.prompts, max_loss)
    model = _model(challenger, bundle, predicted, certificate.threshold)
    found = gain(judging.logged, model, certificate.threshold, new, old)
    refused = []
    if found.effective < FEWEST:
        refused.append(f"the effective sample is {found.effective:.0f}, {FEWEST} are needed")
    if found.dr.low <= 0:
        refused.append(f"the utility gain may be none: {found.dr.value:.4f}, at least {found.dr.low:.4f}")
    rows = np.arange(len(judging))
    tokens = tuple(
        float(np.minimum(predicted.mean_tokens, judging.logged.caps)[rows, rung].mean()) for rung in (old, new)
    )
    return Verdict(refused, certificate, found, (tokens[0], tokens[1]), fitted, len(judging), judging.skipped)


def chosen_by(bundle: Bundle, prompts: list[str], max_loss: float) -> NDArray[np.intp]:
    """The rungs that a bundle's policy takes: always the top one where it has no certificate for the target."""
    certificate = _certificate(bundle, max_loss)
    if certificate is None:
        return np.full(len(prompts), len(bundle.manifest.ladder) - 1)
    predicted = inference.predict(bundle, prompts)
    return choose(predicted.quality, predicted.cost, certificate.threshold)


def _certificate(bundle: Bundle, max_loss: float) -> Certificate | None:
    manifest = bundle.manifest
    return Policy(manifest.ladder, manifest.certificates, LatencyProfile(0, 0, 0)).certificate(MaxLoss(max_loss))


def _model(challenger: Trained, bundle: Bundle, predicted: Prediction, price: float) -> NDArray[np.float64]:
    """Predicted utility [prompts, rungs], its P(correct) calibrated on prompts that nobody was fitted or chosen on."""
    test = challenger.parts["test"]
    calibrated = calibration.fit(inference.predict(bundle, test.prompts).quality, test.correct)
    return np.asarray(calibrated(predicted.quality) - price * predicted.cost)
