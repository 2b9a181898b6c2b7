"""The report of a bundle that was fitted before: evaluated by its ONNX graph, on the same outcomes or on later ones."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from router.bundle import manifest
from router.bundle.manifest import Bundle
from training.data import dataset
from training.data.outcomes import Outcomes
from training.evaluation.evaluate import evaluate
from training.evaluation.spending import UNKNOWN_RATES, Rates
from training.model import inference

Part = dict[str, Any]

OF_THE_FIT = ("methods", "violations", "leave_one_task_out", "stopping", "stopping_violations")
"""Figures that only a fit can make."""


def report(directory: Path, path: Path, rates: Rates = UNKNOWN_RATES, whole: bool = False, soft: bool = False) -> Part:
    """The report on the test split of an outcome file.

    "warnings" says where its certificates do not hold. On the file that the bundle was fitted on, figures of the fit
    itself (re-splits, baselines) still hold and stay.

    Args:
        rates: in which savings are stated beside tokens.
        whole: evaluate all prompts of the file, not its test split alone.
        soft: budgets are hints, which thoughts may exceed.

    Raises:
        ArtifactError: the bundle is missing or damaged.
        DatasetError: the file cannot be read, or has another ladder.
    """
    bundle = manifest.load(directory)
    if whole:
        outcomes = dataset.read(path, soft)
        parts = {"test": outcomes}
    else:
        outcomes, parts = dataset.read_splits(path, soft)
    figures = evaluated(bundle, parts["test"], rates)
    same = bundle.manifest.data_hash == manifest.digest(path)
    fit = _report_of_fit(directory) if same else {}
    about = fit.get("about", {}) | {
        "model": bundle.manifest.backend_fingerprint,
        "fitted": f"{bundle.manifest.created_at:%Y-%m-%d}",
        "ladder": [rung.name for rung in outcomes.ladder.rungs],
        "splits": {name: len(part) for name, part in parts.items()},
        "certificates": [asdict(one) for one in bundle.manifest.certificates],
        "absolute": [asdict(one) for one in bundle.manifest.absolute],
        "per_prompt": [asdict(one) for one in bundle.manifest.per_prompt],
        "per_task": [asdict(one) for one in bundle.manifest.per_task],
        "not_certified": bundle.manifest.not_certified,
        "reference": bundle.manifest.reference,
    }
    about["data"] = about.get("data", {}) | {"file": path.name}
    kept = {name: fit[name] for name in OF_THE_FIT if name in fit}
    return figures | kept | {"about": about, "warnings": _warnings(about["model"], outcomes.model, same and whole)}


def evaluated(bundle: Bundle, outcomes: Outcomes, rates: Rates = UNKNOWN_RATES) -> Part:
    """Figures of a bundle on outcomes that it was not fitted on. Raises DatasetError if these have another ladder."""
    prediction, units = inference.predict_outcomes(bundle, outcomes), rates.units(bundle.tokenizer, outcomes)
    own = bundle.manifest
    report = evaluate(outcomes, prediction, own.certificates, own.absolute, units, own.reference, own.per_prompt)
    return report.to_json()


def _warnings(bundle: str, outcomes: str, fitted_on: bool) -> list[str]:
    warnings = []
    if bundle != outcomes:
        warnings.append(
            f"the bundle is about {bundle}, the outcomes are those of {outcomes}: its certificates say nothing of them"
        )
    if fitted_on:
        warnings.append("the bundle was fitted on most prompts of this file, so figures of the whole file are too good")
    return warnings


def _report_of_fit(directory: Path) -> Part:
    try:
        kept: Part = json.loads((directory / "report.json").read_text())
    except (OSError, ValueError):  # a bundle works without its report
        return {}
    return kept
