"""Predictions of a bundle's ONNX graph: the same figures that serving gets, in arrays."""

import numpy as np
import onnx
import onnxruntime

from router.bundle.manifest import Bundle
from router.domain import Prompt, ReasoningBudget
from router.scoring import outputs
from router.scoring.outputs import Numbers
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError
from training.model.embedding import JOINED, featurizer
from training.model.fit import Inputs
from training.model.head_graph import head_of
from training.prediction import Prediction

BATCH = 256
"""Prompts in one run of the graph."""


def predict(bundle: Bundle, prompts: list[Prompt]) -> Prediction:
    """Predictions of a verified bundle for prompts."""
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    return run(session, bundle.tokenizer, bundle.manifest.max_tokens, prompts, bundle.manifest.far_beyond)


def predict_outcomes(bundle: Bundle, outcomes: Outcomes) -> Prediction:
    """Predictions of a verified bundle for the prompts of outcomes. Raises DatasetError if the ladders differ."""
    if bundle.manifest.ladder != outcomes.ladder:
        raise DatasetError(f"the outcomes have another ladder than the bundle: {_difference(bundle, outcomes)}")
    return predict(bundle, outcomes.prompts)


def _difference(bundle: Bundle, outcomes: Outcomes) -> str:
    """The rungs that only one of both has, in words."""
    mine, theirs = ([_named(rung) for rung in one.rungs] for one in (bundle.manifest.ladder, outcomes.ladder))
    only = {
        "bundle": [one for one in mine if one not in theirs],
        "outcomes": [one for one in theirs if one not in mine],
    }
    parts = [f"rung {', '.join(rungs)} in the {which} alone" for which, rungs in only.items() if rungs]
    return "; ".join(parts) or f"{', '.join(mine)} in the bundle, {', '.join(theirs)} in the outcomes"


def _named(rung: ReasoningBudget) -> str:
    if rung.name == str(rung.tokens):
        return rung.name
    return f"{rung.name} ({'no cap' if rung.tokens is None else f'at most {rung.tokens} tokens'})"


def run(
    session: onnxruntime.InferenceSession,
    tokenizer: bytes,
    max_tokens: int,
    prompts: list[Prompt],
    far_beyond: float | None = None,
) -> Prediction:
    """Predictions of a graph.

    Args:
        tokenizer: `tokenizers` JSON.
        max_tokens: tokens that are read of a prompt.
        far_beyond: novelty beyond which a prompt is far; None where the graph does not compute it.
    """
    # Batches hold prompts of about equal length, so that little of a batch is padding.
    featurize = featurizer(tokenizer, max_tokens)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].text))
    parts = []
    for start in range(0, len(order), BATCH):
        batch = [prompts[i] for i in order[start : start + BATCH]]
        parts.append(session.run(outputs.names(far_beyond), featurize(batch)))
    return _prediction([np.concatenate(one) for one in zip(*parts, strict=True)], far_beyond).take(np.argsort(order))


def of_inputs(session: onnxruntime.InferenceSession, found: Inputs, far_beyond: float | None) -> Prediction:
    """Predictions of the head of a graph (`head_of`) for the inputs of prompts [prompts, width]."""
    return _prediction(session.run(outputs.names(far_beyond), {JOINED: found}), far_beyond)


def of_head(bundle: Bundle, found: Inputs) -> Prediction:
    """Predictions of a verified bundle for the inputs of prompts [prompts, width]."""
    return of_inputs(head_session(bundle), found, bundle.manifest.far_beyond)


def head_session(bundle: Bundle) -> onnxruntime.InferenceSession:
    """A session of the head of a verified bundle's graph."""
    head = head_of(onnx.load_from_string(bundle.model))
    return onnxruntime.InferenceSession(head.SerializeToString(), providers=["CPUExecutionProvider"])


def _prediction(parts: list[Numbers], far_beyond: float | None) -> Prediction:
    quality, means, quantiles, *novelty = (one.astype(float) for one in parts)
    return Prediction(quality, means, quantiles, outputs.far(novelty, far_beyond))
