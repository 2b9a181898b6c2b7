"""A trained router before it is exported, and its figures for reports and manifests."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from router.bundle.spent_delta import LabelUse
from training.certification.betting import DELTA
from training.certification.certify import ALPHAS, Proofs
from training.certification.sequences import beside_fixed
from training.certification.violation import RESPLITS, Violation, resplit, resplit_sequences
from training.data.outcomes import Outcomes, concatenate
from training.evaluation.evaluate import Report
from training.model.fit import Fitted
from training.stopping.replay import described, named
from training.stopping.stage import Within


@dataclass(frozen=True)
class Trained:
    """A trained router before it is exported.

    Attributes:
        parts: the splits "fit", "certify" and "test".
        report: of the test split.
        within: what traces have taught; None without traces.
    """

    parts: dict[str, Outcomes]
    fitted: Fitted
    proofs: Proofs
    report: Report
    within: Within | None = None


def full_report(
    trained: Trained, data: dict[str, Any], left_out: list[dict[str, Any]], use: LabelUse | None = None
) -> dict[str, Any]:
    """All figures of a trained router in JSON types.

    Args:
        data: "file", the name of the outcome file, and its counts.
        left_out: figures of each family of tasks that was left out of fitting.
        use: of the labels that certify; None = they are used once.
    """
    return {
        "about": {
            "model": trained.parts["fit"].model,
            "label_sources": list(trained.parts["fit"].label_sources),
            "fitted": f"{datetime.now(UTC):%Y-%m-%d}",
            "ladder": [rung.name for rung in trained.parts["fit"].ladder.rungs],
            "splits": {name: len(part) for name, part in trained.parts.items()},
            "profile": trained.fitted.embedding.profile,
            "precision": trained.fitted.embedding.precision,
            "model_family": trained.fitted.chosen,
            "log_loss_by_family": trained.fitted.log_losses,
            "calibration": "beta" if trained.fitted.beta else "none: it did not lower held-out log-loss",
            "data": data,
            "certificates": [asdict(c) for c in trained.proofs.relative],
            "absolute": [asdict(c) for c in trained.proofs.absolute],
            "per_prompt": [asdict(c) for c in trained.proofs.per_prompt],
            "per_task": [asdict(c) for c in trained.proofs.per_task],
            "delta": DELTA,
            "delta_spent": DELTA if use is None else use.delta,
            "not_certified": trained.proofs.refused,
            "reference": trained.proofs.reference,
        },
        **trained.report.to_json(),
        "violations": [v.to_json() for v in violations(trained, ALPHAS)],
        "leave_one_task_out": left_out,
        "stopping": stopping_rows(trained),
        "stopping_violations": [v.to_json() for v in stopping_violations(trained, ALPHAS)],
    }


def violations(
    trained: Trained, alphas: tuple[float, ...], resplits: int = RESPLITS, per_prompt: bool = False
) -> list[Any]:
    """`resplit` for every alpha, on all prompts that were not fitted on."""
    pool = concatenate(trained.parts["certify"], trained.parts["test"])
    predicted, fitted = (trained.fitted.predict(part.prompts) for part in (pool, trained.parts["fit"]))
    own = trained.parts["fit"], fitted
    return [resplit((pool, predicted), alpha, resplits, per_prompt, own) for alpha in alphas]


def stopping_violations(trained: Trained, alphas: tuple[float, ...], resplits: int = RESPLITS) -> list[Violation]:
    """Re-splits for every alpha of rules that stop within the thought, on traces that nothing was learned from."""
    if trained.within is None:
        return []
    sequences = beside_fixed(trained.within.held_out())
    return [resplit_sequences(sequences, alpha, resplits) for alpha in alphas]


def stopping_rows(trained: Trained) -> list[dict[str, Any]]:
    """Every certified rule within the thought on the traces of the test split."""
    if trained.within is None:
        return []
    test, lookahead = trained.within.samples["test"], trained.within.lookahead
    rows = []
    for one in trained.proofs.stopping:
        name = named(one.rule, test.traces.ladder)
        row = described(test.traces, "stopping", name, test.stops(one.rule, lookahead), one.alpha)
        rows.append({"alpha": one.alpha, **asdict(row)})
    return rows


def summary(trained: Trained) -> dict[str, Any]:
    """The figures that a manifest carries for its readers; the format calls the model family "form"."""
    report = trained.report
    return {
        "prompts": {name: len(part) for name, part in trained.parts.items()},
        "form": trained.fitted.chosen,
        "log_loss": trained.fitted.log_losses,
        "calibration_error": {rung.rung: rung.calibration_error for rung in report.rungs},
        "policies": policy_figures(report),
    }


def policy_figures(report: Report) -> list[dict[str, Any]]:
    """What the certified policies lose and save, as a manifest carries it."""
    return [
        {"alpha": p.alpha, "loss": p.loss, "top": p.saved_against_top, "hull": p.saved_against_hull}
        for p in report.policies
    ]
