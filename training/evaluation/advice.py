"""What stands between an outcome file and a bundle that saves something: the engine's name, or too few prompts."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from router.bundle.manifest import is_fingerprint
from router.bundle.offers import Offer, best_offer
from router.digits import counted, verb
from router.domain import LabelSource
from training.certification import sample_size
from training.certification.betting import MOST, without_loss
from training.certification.certify import ALPHAS, TARGET, Proofs, loss_target, quality_target
from training.certification.sequences import SHARE, PolicySequence, Sample, policy_sequences
from training.data.outcomes import Outcomes
from training.data.splits import LABELLED, split_of

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


def needs(outcomes: Outcomes, share: float = 1.0) -> str:
    """How many labels each relative target needs where nothing is lost or gained, and how many there are.

    Args:
        share: of delta that the tests may spend.
    """
    parts = [split_of(group) for group in set(outcomes.groups)]
    have, labelled = parts.count("certify"), len(parts) - parts.count("test")
    least = ", ".join(f"{without_loss(alpha, SHARE * share):,} at {alpha:g}" for alpha in ALPHAS)
    return (
        f"labels needed to certify a loss, where nothing is lost: {least}; "
        f"the file has {have:,} for a choice by prompt, {labelled:,} for one rung for everybody"
    )


def about_size(outcomes: Outcomes) -> list[str]:
    """A warning if outcomes in which no prompt gains or loses could not prove the default target."""
    parts = [split_of(group) for group in set(outcomes.groups)]
    have, labelled = parts.count("certify"), len(parts) - parts.count("test")
    least = without_loss(TARGET, SHARE)
    if have >= least:
        return []
    more = sample_size.in_file(least - have)
    # Gains prove something, too, so fewer prompts are no proof that nothing can be certified.
    what = "is not certified" if labelled < least else "is certified for a fixed rung at most"
    return [
        f"a {loss_target(TARGET)}, the default, {what}, unless some prompts gain: a choice by prompt needs {least} "
        f"calibration prompts where nothing is lost or gained, and the file has {have}; about "
        f"{counted(more, 'more prompt')} {verb(more, 'is', 'are')} needed, or more where answers are lost"
    ]


def about_default(report: dict[str, Any]) -> list[str]:
    """Warnings if the target of callers that name none is not certified, or saves nothing; the last says what to do.

    Args:
        report: that of `pipeline.run`.
    """
    why = report["about"]["not_certified"].get(loss_target(TARGET))
    offer = offer_in(report, TARGET)
    if why is not None:
        reference = report["about"]["reference"]
        rung = report["rungs"][-1 if reference is None else reference]["rung"]
        within = any(row["alpha"] <= TARGET for row in report.get("stopping") or ())
        where = " before the thought: on engines that cannot stop within it," if within else ", so by default"
        first = f"a {loss_target(TARGET)}, the default, is not certified{where} every prompt gets rung {rung}"
        return [f"{first}: {why}", *_offered(offer)]
    return [] if offer is None else [f"a {loss_target(TARGET)}, the default, saves next to nothing", *_offered(offer)]


def offer_in(report: dict[str, Any], wanted: float) -> Offer | None:
    """`best_offer` of a report, whose savings are those on the test split."""
    return best_offer(wanted, {policy["alpha"]: policy["saved_against_top"] for policy in report["policies"]})


def _offered(offer: Offer | None) -> list[str]:
    return [] if offer is None else [f"to save tokens now, {offer}"]


def about_agreement(proofs: Proofs, label_sources: tuple[str, ...]) -> Proofs:
    """The same proofs, which say so where labels tell only what agrees with the top rung; no absolute target stays."""
    if AGREEMENT not in label_sources:
        return proofs
    relative, per_prompt = (
        tuple(replace(one, agreement=True) for one in certificates)
        for certificates in (proofs.relative, proofs.per_prompt)
    )
    stopping = tuple(replace(one, agreement=True) for one in proofs.stopping)
    why = "the labels say what agrees with the top rung, not what is right"
    claimed = [quality_target(1 - certificate.alpha) for certificate in proofs.absolute]
    refused = proofs.refused | dict.fromkeys(claimed, why)
    return replace(proofs, relative=relative, per_prompt=per_prompt, absolute=(), refused=refused, stopping=stopping)


def with_remedies(
    proofs: Proofs, held_out: Sample, fitted: Sample, share: float = 1.0, per_task: bool = False
) -> Proofs:
    """The same proofs, whose refused relative targets also say how many prompts would do. Arguments as `certify`."""
    failed = {loss_target(alpha): alpha for alpha in ALPHAS if loss_target(alpha) in proofs.refused}
    if not failed:
        return proofs
    sequences = [one.at(share) for one in policy_sequences(held_out, fitted, per_task) if one.policies]
    remedies = {target: f"{proofs.refused[target]}; {_remedy(alpha, sequences)}" for target, alpha in failed.items()}
    return replace(proofs, refused=proofs.refused | remedies)


def _remedy(alpha: float, sequences: Sequence[PolicySequence]) -> str:
    """What would certify the policies that are tested first: where these fail, so does everything."""
    first = [(one, *one.worst(alpha)) for one in sequences]
    sequence, task, seen = min(first, key=lambda one: float(one[2].mean()))
    lost, tested = float(seen.mean()), "a fixed rung" if sequence.labels == LABELLED else "a learned price"
    tested += f" in {task!r}" if task else ""
    if lost >= alpha:
        return f"{tested} loses at least {lost:.3f} on the {len(seen)} prompts there, so more alone will not do"
    wanted = sample_size.needed(alpha, sample_size.like(seen), sequence.delta)
    if wanted is None:
        return f"{tested} loses {lost:.3f} on the {len(seen)} prompts there, so near that {MOST:,} are too few"
    share = sequence.labels * len(seen) / len(sequence.policies[0].values)
    more = ceil(max(wanted - len(seen), 1) / share)
    return (
        f"{wanted:,} prompts would do for {tested} if its mean loss stays at {lost:.3f}, {len(seen)} are there: about "
        f"{more:,} more in the file"
    )
