"""`make conversations`: what a document, a follow-up or a tool result around a prompt costs the classifier.

Bare prompts of the pocket reasoner are wrapped (`training/wrapping`), with their outcomes, as for the embedded bundle,
which is "now". "Before" scores what earlier versions scored: the last user message, up to its first 16,384 characters,
by a model that was fitted on bare prompts. Templates of the fit split occur in no other split.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
from tokenizers import Tokenizer

from benchmarks import harness
from benchmarks.harness import BUNDLE, OUTCOMES
from router.bundle import features
from router.bundle.featurizer import Featurizer
from router.bundle.manifest import Bundle, load
from router.bundle.normal_form import normal_form
from router.bundle.scored import COUNTS, View
from router.domain import DEFAULT_MAX_LOSS, Certificate, Prompt
from router.scoring.outputs import VECTOR
from training import pipeline
from training.arrays import Rows, Rungs
from training.certification.rules import certified_rungs, losses
from training.data import dataset
from training.data.outcomes import Outcomes
from training.evaluation.policies import auroc
from training.model import inference
from training.model.embedding import Embedding
from training.model.fit import Inputs, families_named
from training.model.onnx_graph import TOKENS
from training.prediction import Prediction
from training.report.text import re_splits
from training.trained import Trained
from training.wrapping.kinds import BARE
from training.wrapping.wrap import conversations, joined

FAMILY = "network 64-32"
"""The embedded bundle's model family."""

READ = 16_384
"""Characters of the last user message that were scored before."""

BATCH = 512
REPORT = "report.json"


@dataclass(frozen=True)
class Column:
    """One way to score: what it predicts for the test split, and the rungs [prompts] that its certificate chooses."""

    prediction: Prediction
    chosen: Rungs


def main() -> None:
    """Print and store the tables."""
    rows = pl.scan_parquet(OUTCOMES)
    outcomes = dataset.from_frame(joined(rows, conversations(rows)))
    assert outcomes.kinds is not None
    test = dataset.splits(outcomes)["test"]
    bare = outcomes.take(np.flatnonzero(np.array(outcomes.kinds) == BARE))
    before = pipeline.train(bare, extraction=as_before, candidates=families_named([FAMILY]))
    table = list(by_kind(test, {"before": as_trained(before, test), "now": as_served(load(BUNDLE), test)}))
    # Re-splits take longer than all else, and `fit` has made them, with the same groups.
    violations = json.loads((BUNDLE / REPORT).read_text())["violations"]
    print(f"{written(table)}\n\n{re_splits(violations)}")
    harness.written("conversations", {"kinds": table, "violations": violations})


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


def as_trained(trained: Trained, test: Outcomes) -> Column:
    """What a router that reads prompts as before does with the test split."""
    fitted = replace(trained.fitted, extract=partial(as_before, trained.fitted.embedding))
    return _column(fitted.predict(test.prompts), trained.proofs.relative, trained.proofs.reference)


def as_served(bundle: Bundle, test: Outcomes) -> Column:
    """What a bundle does with the test split."""
    about = bundle.manifest
    return _column(inference.predict_outcomes(bundle, test), about.certificates, about.reference)


def _column(prediction: Prediction, certificates: tuple[Certificate, ...], reference: int | None) -> Column:
    proof = next((one for one in certificates if one.alpha == DEFAULT_MAX_LOSS), None)
    return Column(prediction, certified_rungs(proof, prediction, reference))


def by_kind(test: Outcomes, columns: dict[str, Column]) -> Iterator[dict[str, Any]]:
    """AUROC of the same prompts bare and wrapped, and what certified policies do, by kind; the mixed stream last."""
    assert test.kinds is not None
    kinds = np.array(test.kinds)
    place = {test.groups[i]: i for i in np.flatnonzero(kinds == BARE)}
    bare = np.array([place[group] for group in test.groups])
    names = [BARE, *sorted(set(test.kinds) - {BARE})]
    for name, part in [(name, np.flatnonzero(kinds == name)) for name in names] + [("all", np.arange(len(test)))]:
        alone = auroc(test.correct[part], columns["now"].prediction.quality[bare[part]])
        own = (_row(which, test.take(part), one, part) for which, one in columns.items())
        yield reduce(or_, own, {"kind": name, "prompts": len(part), "auroc bare": alone})


def _row(which: str, test: Outcomes, column: Column, part: Rows) -> dict[str, Any]:
    """The figures of one way to score on a part of the test split."""
    prediction, chosen = column.prediction.take(part), column.chosen[part]
    thought = test.thinking_tokens[np.arange(len(test)), chosen].mean()
    return {
        f"auroc {which}": auroc(test.correct, prediction.quality),
        f"loss {which}": float(losses(test.correct, chosen).mean()),
        f"saved {which}": float(1 - thought / test.thinking_tokens[:, -1].mean()),
        f"far {which}": None if prediction.far is None else float(prediction.far.mean()),
    }


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
