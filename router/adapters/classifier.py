"""The difficulty classifier in ONNX Runtime."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, isnan
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from router.artifact import MODEL, QUANTILES, TOKENIZER, Bundle
from router.domain import Prompt, Score, TokenForecast
from router.errors import ArtifactError, ClassifierError, SettingsError
from router.features import MAX_CHARACTERS, Featurizer

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
Device = Literal["auto", "cpu", "cuda", "tensorrt"]
PROVIDERS: Mapping[str, Sequence[str]] = {"cpu": (CPU,), "cuda": (CUDA, CPU), "tensorrt": (TENSORRT, CUDA, CPU)}
"""What runs a graph on a device, and what those of its nodes that can not run there."""

PARITY_TOLERANCE = 1e-4
"""Largest difference in P(correct) between training's figures and this machine's."""

PART_PROMPTS, PART_CHARACTERS = 128, 32_768
"""What is scored in one go: milliseconds of the event loop."""


def single_threaded() -> onnxruntime.SessionOptions:
    """One thread that does not spin: small graphs gain nothing from more, and the cores have other work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxClassifier:
    """Scores prompts with a bundle's graph, on the event loop: a run takes microseconds.

    Attributes:
        provider: of ONNX Runtime, which the graph really runs on.

    Raises:
        ArtifactError: the graph does not load, or does not reproduce the bundle's parity sample.
        SettingsError: it does not run on the device.
    """

    def __init__(self, bundle: Bundle, device: Device = "cpu") -> None:
        self._session = _session(bundle, device)
        self.provider: str = self._session.get_providers()[0]
        try:
            self._featurize = Featurizer(bundle.tokenizer, bundle.manifest.max_tokens)
        except ValueError as error:
            raise ArtifactError(f"{TOKENIZER}: {error}") from error
        self._rungs = len(bundle.manifest.ladder)
        self._counted = self._verified(bundle)

    async def score(self, prompts: Sequence[Prompt]) -> list[Score]:
        """One score per prompt, in order; parts of a large batch take turns with others. Raises ClassifierError."""
        scores: list[Score] = []
        for part in _parts(prompts):
            scores += self.scored(part)
            if len(scores) < len(prompts):
                await asyncio.sleep(0)
        return scores

    def scored(self, prompts: Sequence[Prompt]) -> list[Score]:
        """One score per prompt, in order, all in one go. Raises ClassifierError."""
        quality, means, quantiles = self._run(prompts)
        return [
            Score(
                tuple(q),
                tuple(None if isnan(mean) else TokenForecast(mean, *at) for mean, at in zip(m, p, strict=True)),
            )
            for q, m, p in zip(quality.tolist(), means.tolist(), quantiles.tolist(), strict=True)
        ]

    def _run(self, prompts: Sequence[Prompt]) -> list[NDArray[np.float32]]:
        """Quality [n, rungs], mean tokens [n, rungs], token quantiles [n, rungs, 3]. Raises ClassifierError."""
        quality, means, quantiles = outputs = self._outputs(prompts)
        total = quality.sum() + means[:, self._counted].sum() + quantiles[:, self._counted].sum()
        if not isfinite(total):  # one sum is cheaper than a look at each
            raise ClassifierError("the graph returned a number that is not finite")
        return outputs

    def _outputs(self, prompts: Sequence[Prompt]) -> list[NDArray[np.float32]]:
        try:
            return list(self._session.run(["quality", "mean_tokens", "token_quantiles"], self._featurize(prompts)))
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ClassifierError(f"ONNX Runtime: {error}") from error

    def _verified(self, bundle: Bundle) -> "NDArray[np.bool_] | slice":
        """Which rungs [rungs] have token forecasts, of a graph that gives what training gave."""
        try:
            quality, means, quantiles = self._outputs([Prompt.of(text) for text in bundle.parity.prompts])
        except ClassifierError as error:
            raise ArtifactError(f"{MODEL}: {error}") from error
        expected = (len(bundle.parity.prompts), self._rungs)
        if quality.shape != expected or means.shape != expected or quantiles.shape != (*expected, len(QUANTILES)):
            raise ArtifactError(f"{MODEL}: its outputs do not fit a ladder of {self._rungs} rungs")
        if not expected[0] or [len(row) for row in bundle.parity.quality] != [self._rungs] * expected[0]:
            raise ArtifactError(
                f"{MODEL}: its parity sample needs prompts, and for each the quality of {self._rungs} rungs"
            )
        if not np.allclose(quality, bundle.parity.quality, rtol=0, atol=PARITY_TOLERANCE):
            raise ArtifactError(f"{MODEL}: it does not reproduce the parity sample")
        counted = ~np.isnan(means[0])
        if (np.isnan(means) == counted).any() or (np.isnan(quantiles) == counted[:, None]).any():
            raise ArtifactError(f"{MODEL}: a rung has token forecasts for some prompts only")
        return slice(None) if counted.all() else counted


def _session(bundle: Bundle, device: Device) -> onnxruntime.InferenceSession:
    """A session that is seen to run on the device: where CUDA's libraries are missing, ONNX Runtime just falls back."""
    wanted = _providers(device, bundle.manifest.profile)
    if wanted[0] not in onnxruntime.get_available_providers():
        raise SettingsError(f"the classifier can not run on {device}: this ONNX Runtime is built without {wanted[0]}")
    try:
        session = onnxruntime.InferenceSession(bundle.model, single_threaded(), providers=list(wanted))
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise ArtifactError(f"{MODEL}: ONNX Runtime refuses it: {error}") from error
    if device != "auto" and session.get_providers()[0] != wanted[0]:
        raise SettingsError(
            f"the classifier can not run on {device}: ONNX Runtime fell back to {session.get_providers()[0]}; "
            "its messages say which library is missing"
        )
    return session


def _providers(device: Device, profile: str) -> Sequence[str]:
    """What to ask for; "auto" is a GPU for encoders where ONNX Runtime has one: static vectors gain nothing by it."""
    if device == "auto":
        device = "cuda" if profile == "encoder" and CUDA in onnxruntime.get_available_providers() else "cpu"
    return PROVIDERS[device]


def _parts(prompts: Sequence[Prompt]) -> Iterator[Sequence[Prompt]]:
    """Runs of prompts, none of them too much for one go."""
    start, characters = 0, 0
    for end, prompt in enumerate(prompts):
        length = min(len(prompt.text), MAX_CHARACTERS)
        if end > start and (characters + length > PART_CHARACTERS or end - start >= PART_PROMPTS):
            yield prompts[start:end]
            start, characters = end, 0
        characters += length
    yield prompts[start:]
