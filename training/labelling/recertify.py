"""Certificates of an existing bundle on outcomes of which most need no label."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from router.bundle import manifest
from router.bundle.manifest import FORMAT_VERSION, LOOKAHEAD, MODEL
from router.bundle.spent_delta import LabelUse, use_of
from router.digits import counted, verb
from router.domain import Certificate
from training.certification import free_zeros
from training.certification.betting import DELTA
from training.certification.certify import ALPHAS, Proofs, certify_absolute, certify_relative, loss_target
from training.certification.free_zeros import Missing
from training.certification.rules import certified_rungs
from training.certification.sequences import Sample
from training.evaluation.advice import about_agreement
from training.export import reissue
from training.labelling.evidence import Evidence


@dataclass(frozen=True)
class Recertified:
    """What was proved, and what further labels could prove.

    Attributes:
        saved: share of the top rung's thinking tokens that each certificate saves on held-out prompts, by target; None
            where tokens are not recorded.
        missing: labels that the next step of each target lacks, the sequence that lacks fewest first.
        prompts: held-out prompts, and those that only fixed rungs are tested on.
    """

    proofs: Proofs
    saved: dict[float, float | None]
    missing: dict[float, list[Missing]]
    prompts: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """The result in JSON types."""
        proofs = asdict(self.proofs)
        missing = [
            {"max_loss": alpha, "policies": one.sequence, "labels": len(one.rows), "if_nothing_is_lost": one.least}
            for alpha, every in self.missing.items()
            for one in every
        ]
        held_out, fitted = self.prompts
        saved = [{"max_loss": alpha, "share": share} for alpha, share in self.saved.items()]
        return proofs | {"saved": saved, "missing": missing, "held_out": held_out, "fitted": fitted}


def recertify(evidence: Evidence) -> Recertified:
    """Test the bundle's policies in order, as far as labels go."""
    held_out, fitted = evidence.held_out, evidence.fitted
    proofs, claims = certify_relative(*evidence.relative), certify_absolute(held_out)
    missing = {alpha: free_zeros.missing(evidence.sequences(alpha), evidence.samples, alpha) for alpha in ALPHAS}
    refused = proofs.refused | claims.refused | _lacking(evidence, proofs.refused, missing)
    proofs = about_agreement(replace(proofs, absolute=claims.absolute, refused=refused), held_out[0].label_sources)
    saved = {one.alpha: _saved(held_out, one) for one in proofs.relative}
    return Recertified(proofs, saved, missing, (len(held_out[0]), 0 if fitted is None else len(fitted[0])))


def _lacking(evidence: Evidence, refused: dict[str, str], missing: dict[float, list[Missing]]) -> dict[str, str]:
    """Why those targets are refused whose tests ended where a label is missing."""
    why = {}
    for alpha, every in missing.items():
        per_prompt = free_zeros.missing(evidence.sequences(alpha, True), evidence.samples, alpha)
        for target, found in ((loss_target(alpha), every), (loss_target(alpha, True), per_prompt)):
            if target in refused and found:
                why[target] = lacking(found[0])
    return why


def lacking(one: Missing) -> str:
    """The labels that a sequence lacks, in words."""
    count = len(one.rows)
    lossless = "" if one.least == count else f", {one.least} where nothing is lost"
    return f"{one.sequence}: {counted(count, 'label')} {verb(count, 'is', 'are')} missing for the next step{lossless}"


def write(result: Recertified, evidence: Evidence, source: Path, path: Path, out: Path) -> None:
    """Write the bundle `source` with these certificates to `out`, which is replaced in one step.

    Rules that stop within the thought are left out, since only a fit certifies them.

    Args:
        path: the outcome file, which the manifest names.

    Raises:
        ArtifactError, OSError: it cannot be written; what is in `out` stays.
    """
    proofs, own = result.proofs, evidence.bundle.manifest
    held_out, fitted = result.prompts
    about = {"file": path.name, "sha256": manifest.digest(path), "held_out": held_out, "fitted": fitted}
    certified = replace(
        own,
        format_version=FORMAT_VERSION,
        created_at=datetime.now(UTC).replace(microsecond=0),
        certificates=proofs.relative,
        absolute=proofs.absolute,
        not_certified=proofs.refused,
        reference=proofs.reference,
        per_prompt=proofs.per_prompt,
        # They were certified beside the earlier certificates, and for the tokens that these left to save.
        stopping=(),
        per_task=(),
        label_use=_use(evidence),
        files={name: digest for name, digest in own.files.items() if name != LOOKAHEAD},
        metrics=own.metrics | {"certified_on": about},
    )
    reissue(source, certified, out)


def _use(evidence: Evidence) -> LabelUse:
    """The use of the held-out labels, of which more only carry the same test further: it has one name."""
    groups = evidence.held_out[0].groups
    test = "\n".join([evidence.bundle.manifest.files[MODEL], *sorted(set(groups))])
    return replace(use_of(groups, DELTA), run=sha256(test.encode()).hexdigest()[:32])


def _saved(held_out: Sample, certificate: Certificate) -> float | None:
    outcomes, prediction = held_out
    if not outcomes.known_tokens.all():
        return None
    chosen, top = certified_rungs(certificate, prediction), outcomes.thinking_tokens[:, -1]
    spent = outcomes.thinking_tokens[np.arange(len(chosen)), chosen]
    return float(1 - spent.sum() / top.sum()) if top.sum() else 0.0


def describe(result: Recertified) -> str:
    """The result in lines of text."""
    held_out, fitted = result.prompts
    lines = [f"{counted(held_out, 'held-out prompt')}, and {fitted:,} more for fixed rungs"]
    for one in result.proofs.relative:
        saved = result.saved[one.alpha]
        saves = "" if saved is None else f", saves {saved:.1%} of the thinking tokens"
        kind = "by prompt" if one.rung is None else "one rung for everybody"
        differs = ", by agreement: a share of answers that differ" if one.agreement else ""
        more = "".join(f"\n  {lacking(each)}" for each in result.missing[one.alpha])
        lines.append(f"{loss_target(one.alpha)}: certified, {kind}{saves}{differs}{more}")
    lines += [f"{target}: not certified: {why}" for target, why in result.proofs.refused.items()]
    return "\n".join(lines)
