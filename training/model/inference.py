"""What a bundle's graph says of prompts: the same figures that serving would get, in arrays."""

import numpy as np
import onnxruntime

from router.bundle.featurizer import Featurizer
from router.bundle.manifest import Bundle
from router.domain import Prompt
from training.prediction import Prediction

BATCH = 256


def predict(bundle: Bundle, prompts: list[str]) -> Prediction:
    """Predictions of a verified bundle."""
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    return run(session, bundle.tokenizer, bundle.manifest.max_tokens, prompts)


def run(session: onnxruntime.InferenceSession, tokenizer: bytes, max_tokens: int, prompts: list[str]) -> Prediction:
    """Predictions of a graph, in batches of prompts of about equal length."""
    featurize = Featurizer(tokenizer, max_tokens)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    parts = []
    for start in range(0, len(order), BATCH):
        batch = [Prompt.of(prompts[i]) for i in order[start : start + BATCH]]
        parts.append(session.run(["quality", "mean_tokens", "token_quantiles"], featurize(batch)))
    back = np.argsort(order)
    return Prediction(*(np.concatenate(one).astype(float)[back] for one in zip(*parts, strict=True)))
