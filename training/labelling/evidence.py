"""A bundle beside outcomes of which most need no label: what its policies may be tested on."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from router.bundle import manifest
from router.bundle.manifest import Bundle
from router.digits import counted, verb
from router.domain import Prompt
from training.arrays import Mask
from training.certification import free_zeros
from training.certification.sequences import PolicySequence, Sample, policy_sequences, predicted_losses
from training.data import answers, dataset
from training.data.dataset import FEWEST
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError, conformed, naming_file
from training.data.splits import split_of, text_key
from training.model import inference


@dataclass(frozen=True)
class Evidence:
    """Outcomes that a bundle may be certified on.

    Attributes:
        held_out: prompts that the bundle was not fitted on.
        fitted: the others, on which fixed rungs are tested, too; None if there are none.
    """

    bundle: Bundle
    held_out: Sample
    fitted: Sample | None

    @cached_property
    def relative(self) -> tuple[Sample, Sample | None]:
        """Both parts with losses that need no label filled in."""
        held_out, fitted = self.held_out, self.fitted
        other = None if fitted is None else (free_zeros.relative(fitted[0]), fitted[1])
        return (free_zeros.relative(held_out[0]), held_out[1]), other

    @cached_property
    def samples(self) -> list[Sample]:
        """Both parts of `relative`, the held-out one first."""
        return [part for part in self.relative if part is not None]

    def sequences(self, alpha: float, per_prompt: bool = False) -> tuple[PolicySequence, ...]:
        """The policies that are tested for a target."""
        return (predicted_losses(alpha, *self.relative),) if per_prompt else policy_sequences(*self.relative)


def gather(
    path: Path, directory: Path, fitted_on: Path | None = None, agreement: bool = False, soft: bool = False
) -> Evidence:
    """Read what a bundle may be certified on.

    Args:
        path: outcome file whose labels may be missing; labels of agreement count as missing.
        directory: the bundle.
        fitted_on: the file that the bundle was fitted on. Only prompts of its fit split are then left out; without it,
            all that a file's fit split, or test split, would hold.
        agreement: an answer counts as right if it is the top rung's, and no label is read.
        soft: budgets are hints, which thoughts may exceed.

    Raises:
        ArtifactError: the bundle is missing or damaged.
        DatasetError: the file has a fault, another ladder or engine, or too few prompts that were not fitted on;
            `fitted_on` is another file.
    """
    bundle, outcomes = manifest.load(directory), _read(path, agreement, soft)
    _require_about(bundle, outcomes, path)
    seen = _fitted(outcomes, bundle, fitted_on)
    unseen = ~seen if fitted_on is not None else np.array([split_of(group) == "certify" for group in outcomes.groups])
    if unseen.sum() < FEWEST:
        few = int(unseen.sum())
        raise DatasetError(
            f"{path}: {few} of {counted(len(outcomes), 'prompt')} {verb(few, 'counts', 'count')} as held out, {FEWEST} "
            "are needed: the others may have been fitted on; --fitted-on FILE says which ones were"
        )
    prediction = inference.predict_outcomes(bundle, outcomes)
    held_out, fitted = (
        (outcomes.take(rows), prediction.take(rows)) for rows in (np.flatnonzero(unseen), np.flatnonzero(seen))
    )
    return Evidence(bundle, held_out, fitted if len(fitted[0]) else None)


def rows_of(path: Path) -> pl.LazyFrame:
    """Rows of an outcome file with the `identity` of answers, and labels that are not mere agreement."""
    return answers.identified(answers.without_agreement(conformed(pl.scan_parquet(path))))


@dataclass(frozen=True)
class Known:
    """An answer of an outcome file to a prompt, at a rung; `correct` is None where it is not known."""

    prompt: Prompt
    rung: int
    identity: str | None
    correct: float | None


def answers_to(path: Path, prompts: Collection[Prompt]) -> list[Known]:
    """The answers of an outcome file to some prompts, each once."""
    rows = answers.with_known_labels(rows_of(path).filter(pl.col("finish") != "error"))
    found = rows.select("prompt", "messages", "rung_order", "identity", "correct").unique().collect()
    asked = zip(dataset.prompts_of(found), found.drop("prompt", "messages").iter_rows(), strict=True)
    return [Known(prompt, *row) for prompt, row in asked if prompt in prompts]


def _read(path: Path, agreement: bool, soft: bool) -> Outcomes:
    with naming_file(path):
        rows = conformed(pl.scan_parquet(path))
        outcomes = dataset.from_frame(rows if agreement else answers.without_agreement(rows), soft, unlabelled=True)
        if not agreement:
            return replace(outcomes, label_sources=tuple(set(outcomes.label_sources) - {"agreement"}))
        if outcomes.label_sources == ("agreement",) and not np.isnan(outcomes.correct).any():
            return outcomes
        if outcomes.same is None or not outcomes.same[:, :-1].any():
            raise DatasetError("column answer: agreement compares answers, and none of them is the top rung's")
        return free_zeros.by_agreement(outcomes)


def _require_about(bundle: Bundle, outcomes: Outcomes, path: Path) -> None:
    if foreign := bundle.manifest.foreign_to(outcomes.model):
        raise DatasetError(f"{path}: its engine is not the bundle's: {foreign}")


def _fitted(outcomes: Outcomes, bundle: Bundle, fitted_on: Path | None) -> Mask:
    """Prompts that the bundle was, or may have been, fitted on [prompts]."""
    if fitted_on is None:
        return np.array([split_of(group) == "fit" for group in outcomes.groups])
    if manifest.digest(fitted_on) != bundle.manifest.data_hash:
        raise DatasetError(f"{fitted_on}: the bundle was not fitted on this file")
    rows = conformed(pl.scan_parquet(fitted_on)).select("group", "prompt", "messages").unique().collect()
    every = zip(rows["group"], dataset.prompts_of(rows), strict=True)
    fit = [(group, prompt) for group, prompt in every if split_of(group) == "fit"]
    groups, texts = {group for group, _ in fit}, {text_key(prompt) for _, prompt in fit}
    return np.array(
        [
            group in groups or text_key(prompt) in texts
            for group, prompt in zip(outcomes.groups, outcomes.prompts, strict=True)
        ]
    )
