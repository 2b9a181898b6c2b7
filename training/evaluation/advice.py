"""What stands between an outcome file and a bundle that saves something: the engine's name, or too few prompts."""

from dataclasses import replace
from typing import Any

from router.bundle.manifest import is_fingerprint
from router.domain import LabelSource
from training.arrays import Vector
from training.data.dataset import Outcomes
from training.data.splits import split_of
from training.evaluation import sample_size
from training.evaluation.certify import (
    ALPHAS,
    TARGET,
    Groups,
    Proofs,
    choose,
    loss_target,
    losses,
    price_grid,
    quality_target,
)
from training.prediction import Prediction

AGREEMENT = LabelSource.AGREEMENT.value


def about_engine(model: str, engine: str | None = None) -> list[str]:
    """A warning if outcomes do not name the engine as the service does, which would use no bundle made of them.

    Args:
        engine: the fingerprint of the engine that runs, where it is known.
    """
    if model == engine or (engine is None and is_fingerprint(model)):
        return []
    if engine is not None:
        return [f"column model: {model!r} is not the fingerprint of the engine, which is {engine!r}"]
    return [
        f"column model: {model!r} is not an engine's fingerprint, so no service would use a bundle made of this file; "
        "--fingerprint-from URL reads it from the engine"
    ]


def about_size(outcomes: Outcomes) -> list[str]:
    """A warning if even outcomes without any loss could not prove the default target."""
    have = len({group for group in outcomes.groups if split_of(group) == "certify"})
    least = sample_size.without_loss(TARGET)
    if have >= least:
        return []
    return [
        f"a {loss_target(TARGET)}, the default, cannot be certified: that needs {least} calibration prompts where "
        f"nothing is lost, and the file has {have}; about {sample_size.in_file(least - have)} more prompts are needed, "
        "or more where answers are lost"
    ]


def about_default(report: dict[str, Any]) -> list[str]:
    """A warning if the target of callers that name none is not certified; the report is that of `pipeline.run`."""
    why = report["about"]["not_certified"].get(loss_target(TARGET))
    if why is None:
        return []
    return [
        f"a {loss_target(TARGET)}, the default, is not certified, so by default every prompt gets the top rung: {why}"
    ]


def about_agreement(proofs: Proofs, label_sources: tuple[str, ...]) -> Proofs:
    """The same proofs without absolute targets where labels say only what agrees with the top rung."""
    if AGREEMENT not in label_sources:
        return proofs
    why = "the labels say what agrees with the top rung, not what is right"
    claimed = [quality_target(1 - certificate.alpha) for certificate in proofs.absolute]
    return replace(proofs, absolute=(), refused=proofs.refused | dict.fromkeys(claimed, why))


def with_remedies(proofs: Proofs, certify: Outcomes, prediction: Prediction) -> Proofs:
    """The same proofs, whose refused relative targets also say how many prompts would do.

    Args:
        prediction: for the prompts of the certify split.
    """
    groups = Groups(certify.groups, seed=0)
    most_careful = choose(prediction.quality, prediction.cost, price_grid(prediction.cost)[0], prediction.far)
    seen = groups.means(losses(certify.correct, most_careful))
    refused = dict(proofs.refused)
    for alpha in ALPHAS:
        if (target := loss_target(alpha)) in refused:
            refused[target] += f"; {_remedy(alpha, seen)}"
    return replace(proofs, refused=refused)


def _remedy(alpha: float, seen: Vector) -> str:
    lost = float(seen.mean())
    if lost >= alpha:
        return f"that policy loses {lost:.3f} of the {len(seen)} there, so more prompts alone will not do"
    wanted = sample_size.needed(alpha, sample_size.like(seen))
    if wanted is None:
        return f"that policy loses {lost:.3f} of the {len(seen)} there, so near that {sample_size.MOST:,} are too few"
    more = sample_size.in_file(max(wanted - len(seen), 1))
    return (
        f"{wanted:,} calibration prompts would do if they lost {lost:.3f} as well, {len(seen)} are there: about "
        f"{more:,} more prompts in the file"
    )
