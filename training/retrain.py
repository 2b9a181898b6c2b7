"""Train a challenger on the outcome log and the frozen gold set; promote it only where it is proved to be better.

The log is split by prompt. A smaller part is fitted on beside the gold set's fit split; the larger part judges. The
challenger must certify on the gold set's certify split, and the lower bound of its doubly robust utility gain over the
serving bundle must lie above zero. The model inside that estimate is calibrated on the gold set's test split, which
nothing else has read.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.bundle import manifest, spent_delta
from router.bundle.manifest import Bundle
from router.domain import Certificate, MaxLoss, Prompt
from router.routing.policy import LatencyProfile, Policy
from training import pipeline
from training.arrays import Matrix, Rungs
from training.certification.betting import DELTA
from training.certification.certify import loss_target, tested_target
from training.certification.delta import uses_before
from training.certification.gold import instead, require_certifiable, worn
from training.certification.rules import certified_rungs
from training.data import dataset
from training.data import log as log_file
from training.data.labels import FEWEST, remedy, require_judges
from training.data.outcomes import Outcomes
from training.data.splits import split_of
from training.evaluation import logged_traffic
from training.evaluation.logged_traffic import LoggedTraffic
from training.evaluation.off_policy import Gain, gain
from training.export import export
from training.model import calibration, embedding, inference
from training.model.families import ModelFamily
from training.model.fit import CANDIDATES, families_named, fit
from training.prediction import Prediction
from training.stopping.traces import Steps, read_steps
from training.trained import Trained, full_report, summary


@dataclass(frozen=True)
class Verdict:
    """The decision on a challenger.

    Attributes:
        refused: reasons against promotion; empty if the challenger is to be promoted.
        certificate: the challenger's, for the target; None if it has none.
        gain: in utility over the serving bundle; None if it could not be estimated.
        tokens: mean thinking tokens that the serving bundle and the challenger would choose on the judging part.
        fitted: logged prompts that were fitted on.
        judged: logged prompts that judge.
        skipped: labelled decisions left out, by reason.
    """

    refused: list[str]
    certificate: Certificate | None
    gain: Gain | None
    tokens: tuple[float, float] | None
    fitted: int
    judged: int
    skipped: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """The verdict in JSON types."""
        return asdict(self)


def retrain(
    log: str,
    gold: Path,
    registry: Path,
    champion: Bundle,
    out: Path,
    max_loss: float,
    candidates: dict[str, ModelFamily] = CANDIDATES,
    soft: bool = False,
) -> Verdict:
    """Fit a challenger, write its bundle to `out`, and judge it.

    The gold set's labels certify again and again, so the tests share delta, by the registry's record of them.

    Args:
        log: file or Redis URL of the outcome log.
        gold: outcome file with every rung of every prompt.
        registry: directory of promoted bundles.
        champion: the serving bundle.
        max_loss: the relative target that both bundles are compared at.
        soft: budgets of the gold set are hints, which thoughts may exceed.

    Raises:
        ArtifactError: the registry's record cannot be read or written.
        DatasetError: the gold set cannot be trained on or is too small for the target, or the log has too few decisions
            to judge by.
        ExportError: the exported graph differs from the fitted model.
        OutcomeLogError: the log cannot be read.
    """
    outcomes, parts = dataset.read_splits(gold, soft)
    require_certifiable(outcomes, max_loss, champion, len(spent_delta.earlier(registry, parts["certify"].groups)))
    served = logged_traffic.read(log_file.read(log), outcomes.ladder, outcomes.model)
    fitting, judging = split_traffic(served, outcomes)
    require_judges(len(judging))
    more, use, steps = _imputed(fitting, outcomes), pipeline.label_use(outcomes, registry), read_steps(gold)
    traces = steps.traces if isinstance(steps, Steps) else None
    challenger = pipeline.train(outcomes, more=more, candidates=candidates, share=use.delta / DELTA, traces=traces)
    export(
        challenger.fitted,
        outcomes.ladder,
        challenger.proofs,
        outcomes.prompts[: pipeline.SAMPLE],
        out,
        backend_fingerprint=outcomes.model,
        data_hash=manifest.digest(gold),
        metrics=summary(challenger),
        report=full_report(challenger, {"file": gold.name, "traffic": len(fitting)}, [], use),
        label_use=use,
        within=challenger.within,
        answers=steps.kind if isinstance(steps, Steps) else "text",
    )
    return judge(challenger, manifest.load(out), champion, judging, max_loss, len(fitting))


def split_traffic(served: LoggedTraffic, gold: Outcomes) -> tuple[LoggedTraffic, LoggedTraffic]:
    """The part to fit on and the part to judge by.

    Groups with a gold prompt of the certify or the test split are in neither.
    """
    asked = list(zip(served.prompts, served.logged.groups, strict=True))
    gold_side = {prompt: split_of(group) for prompt, group in zip(gold.prompts, gold.groups, strict=True)}
    held = {group for prompt, group in asked if gold_side.get(prompt, "fit") != "fit"}
    sides = [None if group in held else split_of(f"traffic:{group}") for _, group in asked]
    # The estimate needs more prompts than the fit, which has the gold set as well: the largest share judges.
    fitting = np.array([side in ("certify", "test") for side in sides])
    judging = np.array([side == "fit" for side in sides])
    return served.take(np.flatnonzero(fitting)), served.take(np.flatnonzero(judging))


def judge(
    challenger: Trained, bundle: Bundle, champion: Bundle, judging: LoggedTraffic, max_loss: float, fitted: int
) -> Verdict:
    """Decide whether a challenger is certified and worth more than the champion on traffic it was not fitted on.

    Args:
        bundle: the challenger's.
        fitted: logged prompts that the challenger was fitted on.
    """
    certificate = _certificate(bundle, max_loss)
    if certificate is None:
        refused = _uncertified(bundle, champion, max_loss)
        return Verdict(refused, None, None, None, fitted, len(judging), judging.skipped)
    predicted = inference.predict(bundle, judging.prompts)
    new = certified_rungs(certificate, predicted)
    old = _chosen_by(champion, judging.prompts, max_loss)
    model = _utility(challenger, bundle, predicted, certificate.threshold)
    estimate = gain(judging.logged, model, certificate.threshold, new, old)
    # Forecasts of the same model for both policies: the log knows the tokens of one rung a prompt only.
    tokens = np.minimum(predicted.mean_tokens, judging.logged.caps)
    rows = np.arange(len(judging))
    means = float(tokens[rows, old].mean()), float(tokens[rows, new].mean())
    return Verdict(
        _objections(estimate, len(judging)), certificate, estimate, means, fitted, len(judging), judging.skipped
    )


def _chosen_by(bundle: Bundle, prompts: list[Prompt], max_loss: float) -> Rungs:
    """The rungs [prompts] that a bundle's policy takes: the top rung where no certificate covers the target."""
    proof = _certificate(bundle, max_loss)
    return certified_rungs(proof, inference.predict(bundle, prompts), bundle.manifest.reference)


def _imputed(fitting: LoggedTraffic, gold: Outcomes) -> Outcomes | None:
    """The traffic's outcomes, with unknown rungs filled by a quick fit on the gold set alone."""
    if len(fitting) == 0:
        return None
    # The gold set alone: a model fitted on imputed values would confirm them.
    quick = fit(dataset.splits(gold)["fit"], embedding.static(), candidates=families_named(["pooled logit"]))
    return fitting.imputed(gold, quick.predict(fitting.prompts))


def _uncertified(bundle: Bundle, champion: Bundle, max_loss: float) -> list[str]:
    strict, own = tested_target(max_loss), bundle.manifest
    why = own.not_certified.get(loss_target(strict)) if strict is not None else None
    served = instead([one.alpha for one in own.certificates], champion)
    uses = uses_before(own.label_use.delta) if own.label_use is not None else 0
    refused = f"nothing is certified for a loss of at most {max_loss:g}{worn(uses)}{served}"
    return [refused, *([why] if why else [])]


def _objections(estimate: Gain, judged: int) -> list[str]:
    objections = []
    if estimate.effective < FEWEST:
        what = remedy(estimate.effective, judged)
        objections.append(f"the effective sample is {estimate.effective:.0f}, {FEWEST} are needed: {what}")
    if estimate.dr.low <= 0:
        gained = f"{estimate.dr.value:.4f}, at least {estimate.dr.low:.4f}"
        objections.append(f"the utility gain may be none: {gained}")
    return objections


def _certificate(bundle: Bundle, max_loss: float) -> Certificate | None:
    manifest = bundle.manifest
    return Policy(manifest.ladder, manifest.certificates, LatencyProfile(0, 0, 0)).certificate(MaxLoss(max_loss))


def _utility(challenger: Trained, bundle: Bundle, predicted: Prediction, price: float) -> Matrix:
    """Predicted utility [prompts, rungs]; P(correct) is calibrated on prompts that nothing was fitted or chosen on."""
    # DR stays valid with any model, but a calibrated one varies less; the fit and certify splits are used up.
    test = challenger.parts["test"]
    calibrated = calibration.fit(inference.predict(bundle, test.prompts).quality, test.correct)
    return np.asarray(calibrated(predicted.quality) - price * predicted.cost)
