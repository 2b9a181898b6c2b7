"""From an outcome file to a bundle: the stages in their order, each of which ends in a check of itself."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from router.bundle import manifest, spent_delta
from router.bundle.spent_delta import LabelUse
from router.domain import Prompt
from training.certification import delta
from training.certification.betting import DELTA
from training.certification.certify import certify
from training.certification.violation import RESPLITS
from training.data import dataset
from training.data.outcomes import Outcomes, concatenate
from training.data.overview import overview
from training.data.schema import JUDGE, DatasetError
from training.evaluation import comparison, evaluate
from training.evaluation.advice import about_agreement, needs, with_remedies
from training.evaluation.spending import UNKNOWN_RATES, Rates
from training.export import export, standing
from training.model import embedding
from training.model.embedding import Embedding
from training.model.families import ModelFamily, log_loss
from training.model.fit import CANDIDATES, CachedInputs, Fitted, Inputs, fit, inputs
from training.prediction import Prediction
from training.progress import say
from training.stopping import stage
from training.stopping.stage import Within
from training.stopping.traces import Steps, Traces, read_steps
from training.trained import Trained, full_report, summary

SAMPLE = 1_000
"""Prompts on which the exported graph must agree with scikit-learn."""

SHOWN = 1_024
"""Characters of the longest prompt that is kept in a bundle, if there are enough of such."""

PROFILES: dict[tuple[str, str], Callable[[], Embedding]] = {
    ("static", "fp32"): embedding.static,
    **{("encoder", precision): partial(embedding.encoder, precision=precision) for precision in embedding.GRAPHS},
}
"""Embeddings by name of the profile and precision."""

Extraction = Callable[[Embedding, list[Prompt]], Inputs]
"""Extracts the inputs of prompts, in this process or elsewhere."""


def train(
    outcomes: Outcomes,
    profile: str = "static",
    extraction: Extraction = inputs,
    more: Outcomes | None = None,
    precision: str = "fp32",
    candidates: dict[str, ModelFamily] = CANDIDATES,
    rates: Rates = UNKNOWN_RATES,
    traces: Traces | None = None,
    share: float = 1.0,
    per_task: bool = False,
) -> Trained:
    """Run the stages dataset -> fit -> calibrate -> certify -> evaluate.

    Args:
        profile, precision: a key of PROFILES.
        more: outcomes that are fitted on beside the fit split.
        candidates: model families to choose from.
        rates: in which savings are stated beside tokens.
        traces: the same answers as traces, for rules that stop within the thought.
        share: of delta that the certificates may spend, where their labels are used again and again.
        per_task: a relative target must be kept in every family of tasks, not only on average.

    Raises:
        DatasetError: the outcomes cannot be split, or no model family can be fitted to them.
    """
    parts = dataset.splits(outcomes)
    embedded = PROFILES[profile, precision]()
    every = outcomes if more is None else concatenate(outcomes, more)
    basis = parts["fit"] if more is None else concatenate(parts["fit"], more)
    one = "1 model family" if len(candidates) == 1 else f"{len(candidates)} model families compared"
    say(f"fit: {len(basis):,} prompts, {one}")
    fitted = fit(basis, embedded, CachedInputs(partial(extraction, embedded), every.prompts), candidates)
    # The token quantiles come from the certify split, which the regression has not seen; P(correct) stays untouched,
    # so certificates are still tested on labels that nothing was fitted on. So does the distance at which a prompt is
    # far: it reads no labels. What is certified is the policy that gives far prompts the top rung.
    fitted = fitted.with_conformal_tokens(parts["certify"]).with_novelty(parts["certify"].prompts)
    _require_finite(fitted, parts["fit"])
    predicted = {name: fitted.predict(part.prompts) for name, part in parts.items()}
    samples = (parts["certify"], predicted["certify"]), (parts["fit"], predicted["fit"])
    say(f"certify: {len(parts['certify']):,} prompts; evaluate: {len(parts['test']):,} prompts")
    learned = None if traces is None else _within(traces, fitted, basis, parts, predicted)
    stopping = [] if learned is None else learned.sequences()
    proofs = about_agreement(certify(*samples, stopping, share, per_task), outcomes.label_sources)
    proofs = with_remedies(proofs, *samples, share, per_task)
    units = rates.units(embedded.tokenizer, parts["test"])
    report = evaluate.evaluate(
        parts["test"],
        predicted["test"],
        proofs.relative,
        proofs.absolute,
        units,
        proofs.reference,
        proofs.per_prompt,
    )
    return Trained(parts, fitted, proofs, report, learned)


def _within(
    traces: Traces, fitted: Fitted, basis: Outcomes, parts: dict[str, Outcomes], predicted: dict[str, Prediction]
) -> Within | None:
    """What traces teach, beside forecasts of models that have not seen the prompt."""
    quality = dict(zip(basis.prompts, fitted.held_out, strict=True))
    far: set[Prompt] = set()
    for name, part in parts.items():
        prediction = predicted[name]
        if name != "fit":
            quality |= zip(part.prompts, prediction.quality, strict=True)
        if prediction.far is not None:
            far |= {part.prompts[i] for i in np.flatnonzero(prediction.far)}
    say(f"stopping: {len(traces):,} traces")
    return stage.within(traces, quality, frozenset(far))


def with_baselines(trained: Trained) -> Trained:
    """The same router with every baseline in its report."""
    return replace(trained, report=replace(trained.report, methods=comparison.methods(trained.parts, trained.fitted)))


def run(
    path: Path,
    out: Path,
    profile: str,
    compare: bool,
    extraction: Extraction = inputs,
    precision: str = "fp32",
    candidates: dict[str, ModelFamily] = CANDIDATES,
    engine: str | None = None,
    rates: Rates = UNKNOWN_RATES,
    soft: bool = False,
    registry: Path | None = None,
    per_task: bool = False,
    answers: str | None = None,
) -> dict[str, Any]:
    """Run all stages on the file `path`, write the bundle with its report to `out`, and return the report.

    Args:
        compare: add every baseline, and each family of tasks left out.
        engine: fingerprint of the engine that answered, in place of the one in the file.
        rates: in which savings are stated beside tokens.
        soft: budgets are hints, which thoughts may exceed.
        registry: whose record says how often the labels certified before; without one they may spend all of delta.
        per_task: a relative target must be kept in every family of tasks, not only on average.
        answers: how the file's answers were compared, a name in `router.answer_keys.KINDS`; None = as the file says.

    Raises:
        DatasetError: the file cannot be trained on.
        ExportError: the exported graph differs from the fitted model; nothing is written.
    """
    outcomes, _ = dataset.read_splits(path, soft)
    if (date := standing(out)) is not None:
        say(f"fit: replaces the bundle of {date} in {out}")
    outcomes = outcomes if engine is None else replace(outcomes, model=engine)
    use, steps = label_use(outcomes, registry), read_steps(path, answers)
    say(f"fit: {needs(outcomes, use.delta / DELTA)}")
    _say_of_traces(steps)
    trained = train(
        outcomes,
        profile,
        extraction,
        precision=precision,
        candidates=candidates,
        rates=rates,
        traces=steps.traces if isinstance(steps, Steps) else None,
        share=use.delta / DELTA,
        per_task=per_task,
    )
    trained = with_baselines(trained) if compare else trained
    left_out = comparison.leave_one_family_out(trained.parts, trained.fitted) if compare else []
    say(f"re-splits: {RESPLITS} of each target test how often certificates are violated")
    report = full_report(trained, {"file": path.name, **asdict(overview(path, soft))}, left_out, use)
    say("export: the graph is compared with the model")
    export(
        trained.fitted,
        outcomes.ladder,
        trained.proofs,
        _sample(outcomes.prompts),
        out,
        backend_fingerprint=outcomes.model,
        data_hash=manifest.digest(path),
        metrics=summary(trained) | _judged_by(report["about"]),
        report=report,
        within=trained.within,
        answers=steps.kind if isinstance(steps, Steps) else "text",
        label_use=use,
    )
    return report


def _say_of_traces(steps: Steps | str) -> None:
    """Say what rules within the thought can be learned from, or why from nothing."""
    if isinstance(steps, str):
        say(f"stopping: no rule within the thought: {steps}")
    elif not steps.nested:
        say(
            "stopping: each rung was run by itself; what is certified holds if runs repeat a thought, as greedy ones do"
        )


def _sample(prompts: list[Prompt]) -> list[Prompt]:
    """Prompts of all splits to compare graph and model on, which reads no labels; short ones first."""
    drawn = [prompts[i] for i in np.random.default_rng(0).permutation(len(prompts))[:SAMPLE]]
    return sorted(drawn, key=_is_long)  # the first ones become the parity sample, which stays small


def _is_long(prompt: Prompt) -> bool:
    return sum(len(message.content) for message in prompt.messages) > SHOWN


def label_use(outcomes: Outcomes, registry: Path | None) -> LabelUse:
    """Record that certificates are tested on the labels of outcomes, which spends some of delta.

    Raises:
        DatasetError: the outcomes cannot be split.
        ArtifactError: the registry's record cannot be read or written.
    """
    groups = dataset.splits(outcomes)["certify"].groups
    if registry is None:
        return spent_delta.use_of(groups, DELTA)
    return spent_delta.spend(registry, groups, lambda use: DELTA * delta.share(use))


def _judged_by(about: dict[str, Any]) -> dict[str, str]:
    """The judge's model, where the certificates are about its verdicts."""
    return {"judged_by": about["data"]["judge"] or "unknown"} if JUDGE in about["label_sources"] else {}


def _require_finite(fitted: Fitted, outcomes: Outcomes) -> None:
    """Raise DatasetError, with the log-loss of a constant beside it, if no family gave a finite log-loss."""
    mean = np.clip(outcomes.correct.mean(axis=0), fitted.bound, 1 - fitted.bound)
    constant = log_loss(outcomes.correct, np.broadcast_to(mean, outcomes.correct.shape))
    if not np.isfinite(fitted.log_losses[fitted.chosen]):
        raise DatasetError(f"the best model family's log-loss is not finite (a constant has {constant:.3f})")
