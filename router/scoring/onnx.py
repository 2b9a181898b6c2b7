"""The difficulty classifier in ONNX Runtime."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import onnxruntime

from router.bundle.asking import REACH
from router.bundle.featurizer import Featurizer
from router.bundle.manifest import MODEL, TOKENIZER, Bundle, Manifest
from router.circuit_breaker import Breaker
from router.domain import Prompt, Score
from router.errors import ArtifactError, ClassifierError, SettingsError
from router.onnx_session import CPU, BoundedSession, OverrunError, open_session
from router.scoring import outputs
from router.scoring.outputs import Outputs
from router.turn import others_first

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
Device = Literal["auto", "cpu", "cuda", "tensorrt"]
PROVIDERS: Mapping[str, Sequence[str]] = {"cpu": (CPU,), "cuda": (CUDA, CPU), "tensorrt": (TENSORRT, CUDA, CPU)}
"""Execution providers by device: the first runs the graph, the next ones those nodes that it cannot run."""

PART_PROMPTS, PART_CHARACTERS = 64, 16_384
"""Largest part that is scored without a break, in prompts and in characters after padding: it blocks the event loop for
milliseconds, and the memory pool keeps what it takes."""

START_SECONDS, RUN_SECONDS, BATCH_SECONDS = 600.0, 1.0, 10.0
"""Longest runs: the first one, for which a GPU compiles; one on the event loop; one of an encoder, in a thread."""

AWAY_SECONDS, LONGEST_AWAY = 300.0, 3_600.0
"""How long a graph that ran too long is left out: on the event loop everyone waited for it."""

INPUTS = {"features": "tensor(float)", "tokens": "tensor(int64)"}
"""The graph's inputs."""

LONG = 2_048
"""Characters beyond which others run before a prompt is scored."""


class OnnxClassifier:
    """Scores prompts with a bundle's graph, on the event loop: a run takes microseconds.

    A run that does not end is ended, and the graph is left out for a while.

    Attributes:
        provider: the execution provider that really runs the graph.

    Raises:
        ArtifactError: the graph does not load, or does not reproduce the bundle's parity sample.
        SettingsError: the graph does not run on the device.
    """

    def __init__(self, bundle: Bundle, device: Device = "cpu") -> None:
        session = _session(bundle, device)
        self.provider: str = session.get_providers()[0]
        self._session = BoundedSession(session, START_SECONDS)
        self._left_out: Breaker | None = None
        try:
            self._featurize = Featurizer(bundle.tokenizer, bundle.manifest.max_tokens)
        except ValueError as error:
            raise ArtifactError(f"{TOKENIZER}: {error}") from error
        self._far_beyond = bundle.manifest.far_beyond
        self._names = outputs.names(self._far_beyond)
        self._known = self._verified(bundle)
        self._session.seconds = BATCH_SECONDS if bundle.manifest.text_encoder == "encoder" else RUN_SECONDS

    async def score(self, prompts: Sequence[Prompt], owner: bytes = b"") -> list[Score]:
        """One score per prompt, in order; other tasks run between parts of a large batch. Raises ClassifierError."""
        scores: list[Score] = []
        for part in _parts(prompts):
            # The caller has hashed these prompts just now, which takes as long as a score where texts are long.
            if scores or len(part[0].text) > LONG:
                await others_first()
            scores += self.scored(part)
        return scores

    def at_once(self, prompt: Prompt) -> Score | None:
        """The score of a prompt, without a break; None where it is long. Raises ClassifierError."""
        return None if len(prompt.text) > LONG else self.scored([prompt])[0]

    def scored(self, prompts: Sequence[Prompt]) -> list[Score]:
        """One score per prompt, in order, without a break. Raises ClassifierError."""
        return outputs.scores(self._outputs(prompts), self._known, len(prompts), self._far_beyond)

    def _outputs(self, prompts: Sequence[Prompt]) -> Outputs:
        if self._left_out is not None and not self._left_out.allows():
            raise ClassifierError("ONNX Runtime: a run took too long a moment ago, and the graph is left out")
        try:
            return self._session.run(self._names, self._featurize(prompts))
        except OverrunError as error:
            self._left_out = self._left_out or Breaker(AWAY_SECONDS, LONGEST_AWAY, most=1)
            self._left_out.failed()
            raise ClassifierError(f"ONNX Runtime: {error}") from error
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ClassifierError(f"ONNX Runtime: {error}") from error

    def _verified(self, bundle: Bundle) -> list[bool]:
        """Check the graph against the parity sample; returns which rungs [rungs] have token forecasts."""
        try:
            answers = self._outputs(bundle.parity.prompts)
            known = outputs.counted(answers, bundle)
            outputs.scores(answers, known, len(bundle.parity.prompts), self._far_beyond)
        except ClassifierError as error:
            raise ArtifactError(f"{MODEL}: {error}") from error
        return known


def _session(bundle: Bundle, device: Device) -> onnxruntime.InferenceSession:
    """A session that runs on the device: without CUDA's libraries ONNX Runtime falls back to the CPU in silence."""
    wanted = _providers(device, bundle.manifest)
    if wanted[0] not in onnxruntime.get_available_providers():
        raise SettingsError(f"the classifier cannot run on {device}: this ONNX Runtime is built without {wanted[0]}")
    try:
        session = open_session(bundle.model, wanted)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise ArtifactError(f"{MODEL}: ONNX Runtime refuses it: {error}") from error
    _require_interface(session, bundle.manifest)
    if device != "auto" and session.get_providers()[0] != wanted[0]:
        raise SettingsError(
            f"the classifier cannot run on {device}: ONNX Runtime fell back to {session.get_providers()[0]}; "
            "its messages say which library is missing"
        )
    return session


def _require_interface(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    """Raises ArtifactError where a graph has other inputs or outputs than its manifest says."""
    for kind, wanted, found in (
        ("inputs", INPUTS, {one.name: one.type for one in session.get_inputs()}),
        (
            "outputs",
            dict.fromkeys(outputs.names(manifest.far_beyond), "tensor(float)"),
            {one.name: one.type for one in session.get_outputs() if one.name != outputs.VECTOR},
        ),
    ):
        if found != wanted:
            raise ArtifactError(f"{MODEL}: its {kind} are {found}, not {wanted}"[:400])


def _providers(device: Device, manifest: Manifest) -> Sequence[str]:
    """Providers for a device; "auto" is a GPU for encoders if there is one: static vectors and 8 bits gain nothing."""
    if device == "auto":
        gains = manifest.text_encoder == "encoder" and manifest.precision != "int8"
        device = "cuda" if gains and CUDA in onnxruntime.get_available_providers() else "cpu"
    return PROVIDERS[device]


def _parts(prompts: Sequence[Prompt]) -> Iterator[Sequence[Prompt]]:
    """Split prompts into parts, each small enough to be scored without a break."""
    start, longest = 0, 0
    for end, prompt in enumerate(prompts):
        length = min(len(prompt.text), 2 * REACH)
        longest, size = max(longest, length), end - start
        if size and (longest * (size + 1) > PART_CHARACTERS or size >= PART_PROMPTS):
            yield prompts[start:end]
            start, longest = end, length
    if prompts:
        yield prompts[start:]
