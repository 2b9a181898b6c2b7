"""`make conversations`: what a document, a follow-up or a tool result around a prompt costs the classifier.

Bare prompts of the pocket reasoner are wrapped (`training/wrapping`), with their outcomes. Templates of the fit split
occur in no other split. "Before" scores what earlier versions scored: the last user message, up to its first 16,384
characters, by a model that was fitted on bare prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
from tokenizers import Tokenizer

from benchmarks import harness
from benchmarks.harness import OUTCOMES
from router.bundle import features
from router.bundle.featurizer import Featurizer
from router.bundle.normal_form import normal_form
from router.bundle.scored import COUNTS, View
from router.domain import DEFAULT_MAX_LOSS, Prompt
from training import pipeline
from training.certification.certify import ALPHAS
from training.certification.sequences import certified_rungs
from training.data import dataset
from training.data.dataset import Outcomes
from training.evaluation import tasks
from training.evaluation.policies import auroc
from training.model.embedding import Embedding
from training.model.fit import Inputs, families_named
from training.model.onnx_graph import TOKENS, VECTOR
from training.pipeline import Trained
from training.prediction import Prediction
from training.report.text import re_splits
from training.wrapping.kinds import BARE
from training.wrapping.wrap import conversations, joined

FAMILY = "network 64-32"
"""The shipped bundle's model family: comparing all of them takes four minutes, and chooses this one."""

READ = 16_384
"""Characters of the last user message that were scored before."""

BATCH = 512


@dataclass(frozen=True)
class Column:
    """One way to score: what it predicts for the test split, and what its certificate chooses."""

    prediction: Prediction
    by_kind: dict[str, dict[str, Any]]
    certified: bool


def main() -> None:
    """Print and store the tables."""
    rows = pl.scan_parquet(OUTCOMES)
    outcomes = dataset.from_frame(joined(rows, conversations(rows)))
    assert outcomes.kinds is not None
    bare = outcomes.take(np.flatnonzero(np.array(outcomes.kinds) == BARE))
    only = families_named([FAMILY])
    before, now = pipeline.train(bare, extraction=as_before, candidates=only), pipeline.train(outcomes, candidates=only)
    test = now.parts["test"]
    columns = {"before": column(before, test, as_before), "now": column(now, test)}
    table = list(by_kind(test, columns))
    violations = [one.to_json() for one in pipeline.violations(now, ALPHAS)]
    print(f"{written(table)}\n\n{re_splits(violations)}")
    certified = {name: one.certified for name, one in columns.items()}
    harness.written("conversations", {"kinds": table, "certified": certified, "violations": violations})


def as_before(embedding: Embedding, prompts: Sequence[Prompt]) -> Inputs:
    """The inputs that earlier versions extracted [prompts, width]."""
    texts = [normal_form(prompt.text[:READ]) for prompt in prompts]
    # The only count of a conversation, its messages, never varied over bare prompts, and so was not read.
    counts = (1, 1, *[0] * (len(COUNTS) - 2))
    hand = features.of_views([View(text, counts=counts) for text in texts])
    return np.hstack([hand, *vectors(embedding, texts)])


def vectors(embedding: Embedding, texts: Sequence[str]) -> list[Inputs]:
    """The vectors of whole texts [prompts, d], whatever a bundle would read of them."""
    tokenizer = Tokenizer.from_buffer(embedding.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(embedding.max_tokens)
    padded = Featurizer(embedding.tokenizer, embedding.max_tokens).padded
    session = onnxruntime.InferenceSession(embedding.graph.SerializeToString(), providers=["CPUExecutionProvider"])
    parts = []
    for start in range(0, len(texts), BATCH):
        ids = [one.ids for one in tokenizer.encode_batch_fast(texts[start : start + BATCH])]
        parts += session.run([VECTOR], {TOKENS: padded(ids)})
    return [np.concatenate(parts)]


def column(trained: Trained, test: Outcomes, extract: Any = None) -> Column:
    """What a trained router does with the test split, under its certificate for the default target."""
    fitted = trained.fitted
    if extract is not None:
        fitted = replace(fitted, extract=lambda prompts: extract(fitted.embedding, prompts))
    prediction = fitted.predict(test.prompts)
    proof = next((one for one in trained.proofs.relative if one.alpha == DEFAULT_MAX_LOSS), None)
    chosen = certified_rungs(proof, prediction, trained.proofs.reference)
    rows = {row["task"]: row for row in tasks.kinds(test, prediction, chosen)}
    return Column(prediction, rows, proof is not None)


def by_kind(test: Outcomes, columns: dict[str, Column]) -> list[dict[str, Any]]:
    """AUROC of the same prompts bare and wrapped, and what certified policies do, by kind; the mixed stream last."""
    assert test.kinds is not None
    kinds, groups = np.array(test.kinds), np.array(test.groups)
    place = {groups[i]: i for i in np.flatnonzero(kinds == BARE)}
    alone = columns["now"].prediction.quality[[place[group] for group in groups]]
    names = [BARE, *(name for name in np.unique(kinds) if name != BARE)]
    parts = [(str(name), np.flatnonzero(kinds == name)) for name in names] + [("all", np.arange(len(test)))]
    return [_row(name, test.correct[part], alone[part], part, columns) for name, part in parts]


def _row(name: str, correct: Any, alone: Any, part: Any, columns: dict[str, Column]) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": name, "prompts": len(part), "auroc bare": auroc(correct, alone)}
    for which, one in columns.items():
        row[f"auroc {which}"] = auroc(correct, one.prediction.quality[part])
        policy = one.by_kind.get(name) or _overall(one)
        row[f"loss {which}"], row[f"saved {which}"] = policy["loss"], policy["saved_against_top"]
        far = one.prediction.far
        row[f"far {which}"] = None if far is None else float(far[part].mean())
    return row


def _overall(column: Column) -> dict[str, float]:
    """The mean over all prompts of a column."""
    rows = list(column.by_kind.values())
    weights = [row["prompts"] for row in rows]
    # Rungs of the same prompts are compared, so savings weigh as the thoughts at the top do, which are alike by kind.
    return {name: float(np.average([row[name] for row in rows], weights=weights))
            for name in ("loss", "saved_against_top")}  # fmt: skip


def written(table: Sequence[dict[str, Any]]) -> str:
    """A Markdown table; AUROC as it is, everything else in points."""
    head = list(table[0])
    lines = [[_cell(name, row[name]) for name in head] for row in table]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def _cell(name: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if name.startswith("auroc") else f"{100 * value:z.1f}"


if __name__ == "__main__":
    main()
