"""Fitted models -> one ONNX graph -> a bundle, which is written aside and moved into place in one step."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from router import chat_form
from router.bundle import features
from router.bundle.manifest import (
    FORMAT_VERSION,
    LOOKAHEAD,
    MANIFEST,
    MODEL,
    PARITY,
    TOKENIZER,
    Manifest,
    digest,
    load,
    write_manifest,
)  # fmt: skip
from router.bundle.staging import Staging
from router.domain import BudgetLadder, Prompt
from router.errors import RouterError
from router.files import make_private, write_private
from router.scoring.outputs import HALF_TOLERANCE
from training.certification.certify import Proofs
from training.certification.rules import certified_rungs, smallest
from training.model import inference
from training.model.fit import Fitted
from training.model.head_graph import build_graph
from training.prediction import Prediction
from training.report import html
from training.stopping.graph import Exported, exported
from training.stopping.stage import Within

TOLERANCE = 1e-5
"""Largest difference in P(correct). Half precision rounds differently in every batch, so it has serving's tolerance."""

HALF_DECISIONS = 0.01
"""Share of decisions that may differ in half precision: those between rungs of nearly equal worth."""

AT_LIMIT = 0.01
"""Share of prompts that may be far for one of both only: at the very limit 32 bits decide. It lies at the distance of a
prompt of the certify split, so one such prompt is to be expected."""

PARITY_PROMPTS = 16
"""Prompts whose predictions a bundle carries, so that serving can check its own."""


class ExportError(RouterError):
    """The graph predicts something else than scikit-learn, so the certificates would not hold for it."""


def export(
    fitted: Fitted,
    ladder: BudgetLadder,
    proofs: Proofs,
    sample: list[Prompt],
    directory: Path,
    within: Within | None = None,
    **about: Any,
) -> None:
    """Write a bundle to `directory` and replace the bundle there. Its files with prompts are their owner's alone.

    Args:
        sample: prompts on which graph and scikit-learn must agree; the first ones become the parity sample.
        within: what traces have taught, where a learned rule was certified.
        about: the manifest's backend_fingerprint, data_hash, metrics and label_use, and the report; None = without one.

    Raises:
        ExportError: graph and scikit-learn differ, see `check`; nothing is written.
    """
    expected = fitted.predict(sample)
    model = _agreeing(fitted, ladder, proofs, sample, expected)
    lookahead = exported(proofs.stopping, within)
    if lookahead is not None and not lookahead.worst <= TOLERANCE:
        raise ExportError(f"ONNX Runtime and the lookahead differ by {lookahead.worst:.1e}, more than {TOLERANCE:g}")
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename is one step only within a file system.
    with Staging(directory.parent) as staging:
        _write(fitted, model, ladder, proofs, sample[:PARITY_PROMPTS], expected, staging.folder, about, lookahead)
        _move(staging, directory)


def reissue(source: Path, certified: Manifest, directory: Path, report: dict[str, Any] | None = None) -> None:
    """Write the bundle in `source` with another manifest to `directory`, and replace the bundle there.

    The source's report is left out, since it is about other certificates.

    Raises:
        ArtifactError: a file of the bundle is not the one that the manifest names.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with Staging(directory.parent) as staging:
        for name in certified.files:
            shutil.copyfile(source / name, staging.folder / name)
        make_private(staging.folder / PARITY)
        write_manifest(staging.folder, certified)
        load(staging.folder)
        if report is not None:
            html.write(staging.folder, report)
        _move(staging, directory)


def standing(directory: Path) -> str | None:
    """The date of the bundle in a directory, which an export would replace; None where there is none."""
    try:
        return str(json.loads((directory / MANIFEST).read_text())["created_at"])[:10]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _agreeing(
    fitted: Fitted, ladder: BudgetLadder, proofs: Proofs, sample: list[Prompt], expected: Prediction
) -> onnx.ModelProto:
    """The graph that agrees with scikit-learn: in 64 bits where the model is too steep for 32. Raises ExportError."""
    model = build_graph(fitted, ladder)
    try:
        check(fitted, model, sample, expected, proofs)
    except ExportError:
        model = build_graph(fitted, ladder, double=True)
        check(fitted, model, sample, expected, proofs)
    return model


def check(fitted: Fitted, model: onnx.ModelProto, sample: list[Prompt], expected: Prediction, proofs: Proofs) -> None:
    """Raise ExportError unless ONNX Runtime and scikit-learn agree on the sample.

    P(correct) must agree within the tolerance, and all decisions of all certificates must be equal; in half precision,
    HALF_DECISIONS of them may differ. Prompts at the limit of what is far may lie on either side.
    """
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    served = inference.run(session, fitted.embedding.tokenizer, fitted.embedding.max_tokens, sample, fitted.far_beyond)
    half = fitted.embedding.precision == "fp16"
    tolerance, share = (HALF_TOLERANCE, HALF_DECISIONS) if half else (TOLERANCE, 0.0)
    worst = float(np.abs(served.quality - expected.quality).max())
    if not worst <= tolerance:
        raise ExportError(
            f"ONNX Runtime and scikit-learn differ by {worst:.1e} in P(correct), more than {tolerance:g}: the fitted "
            f"{fitted.chosen!r} is too steep; fit another --model-family, or more prompts"
        )
    if expected.far is not None and served.far is not None:
        if (differ := served.far != expected.far).sum() > max(1, AT_LIMIT * len(sample)):
            raise ExportError(f"{differ.sum()} of {len(differ)} prompts are far for one of both only")
        served = replace(served, far=expected.far)
    differing = []
    for certificate in proofs.relative:
        chosen, wanted = (certified_rungs(certificate, p) for p in (served, expected))
        differing.append(chosen != wanted)
    for certificate in proofs.per_prompt:
        chosen, wanted = (smallest(p.quality, certificate.threshold, p.far) for p in (served, expected))
        differing.append(chosen != wanted)
    for certificate in proofs.absolute:
        passing, should_pass = (p.claimed >= certificate.threshold for p in (served, expected))
        differing.append((passing != should_pass).any(axis=1))
    for differ in differing:
        if differ.mean() > share:
            raise ExportError(f"{differ.sum()} of {len(differ)} decisions differ between ONNX Runtime and scikit-learn")


def _write(
    fitted: Fitted,
    model: onnx.ModelProto,
    ladder: BudgetLadder,
    proofs: Proofs,
    sample: list[Prompt],
    expected: Prediction,
    aside: Path,
    about: dict[str, Any],
    lookahead: Exported | None,
) -> None:
    (aside / MODEL).write_bytes(model.SerializeToString())
    (aside / TOKENIZER).write_bytes(fitted.embedding.tokenizer)
    # Serving scores these prompts when it loads the bundle, and refuses it if another machine computes other values.
    parity: dict[str, Any] = {
        "prompts": list(map(_written, sample)),
        "quality": expected.quality[: len(sample)].tolist(),
    }
    if lookahead is not None:
        (aside / LOOKAHEAD).write_bytes(lookahead.graph)
        parity["cuts"] = lookahead.cuts
    write_private(aside / PARITY, json.dumps(parity, indent=1) + "\n")
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        created_at=datetime.now(UTC).replace(microsecond=0),
        ladder=ladder,
        backend_fingerprint=about["backend_fingerprint"],
        feature_version=features.VERSION,
        text_encoder=fitted.embedding.profile,
        max_tokens=fitted.embedding.max_tokens,
        data_hash=about["data_hash"],
        certificates=proofs.relative,
        absolute=proofs.absolute,
        not_certified=proofs.refused,
        metrics=about["metrics"],
        files={path.name: digest(path) for path in sorted(aside.iterdir())},
        precision=fitted.embedding.precision,
        far_beyond=fitted.far_beyond,
        reference=proofs.reference,
        stopping=proofs.stopping,
        answers=about.get("answers", "text"),
        per_prompt=proofs.per_prompt,
        per_task=proofs.per_task,
        label_use=about.get("label_use"),
    )
    write_manifest(aside, manifest)
    if about["report"] is not None:
        html.write(aside, about["report"])


def _written(prompt: Prompt) -> Any:
    """A prompt in JSON types: its text, or its messages where there is more."""
    messages = chat_form.to_json(prompt)
    return prompt.text if messages is None else json.loads(messages)


def _move(staging: Staging, directory: Path) -> None:
    """Move the finished bundle into place; the old one is deleted only after the new one stands there."""
    assert (staging.folder / MANIFEST).exists()
    # A directory cannot replace another in one step, so the old one moves out of the way first.
    if directory.exists():
        directory.rename(staging.home / "old")
    staging.rename(directory)
