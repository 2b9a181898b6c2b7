"""The difficulty classifier on a Triton server: prompts become tokens here, the graph runs there.

Scoring blocks, so `Batching` runs it in a thread, as it runs an encoder here. One call at a time then carries all
prompts that arrived during the last one. A call per prompt would leave the batching to Triton, which joins only
requests of one shape, and prompts differ in length.
"""

from collections.abc import Sequence

import numpy as np

from router.bundle.featurizer import Featurizer
from router.bundle.manifest import TOKENIZER, Bundle
from router.circuit_breaker import Breaker
from router.domain import Prompt, Score
from router.errors import ArtifactError, ClassifierError
from router.scoring.kserve import CALL_SECONDS, Inputs, Triton
from router.scoring.outputs import Outputs, counted, scores, shapes

LENGTHS = 16
"""Tokens are padded to a multiple of this length, so that Triton can join the batches of several routers."""

START_SECONDS = 10.0
"""Time limit of the first run of a graph, in which a GPU allocates and compiles."""

AWAY_SECONDS, LONGEST_AWAY = 1.0, 5.0


class TritonClassifier:
    """Scores prompts with a bundle's graph on a server, by the version of its model that is the bundle's own.

    The parity sample finds the version, and every request names its number from then on, so that a version that the
    server loads later changes no score.

    Args:
        breaker: leaves the server out after failures.
        call_seconds: time limit of a call.

    Attributes:
        provider: the server, the model and its version.

    Raises:
        ArtifactError: the server does not answer, or no version reproduces the bundle's parity sample.
    """

    def __init__(
        self, bundle: Bundle, server: Triton, breaker: Breaker | None = None, call_seconds: float = CALL_SECONDS
    ) -> None:
        try:
            self._featurize = Featurizer(bundle.tokenizer, bundle.manifest.max_tokens)
        except ValueError as error:
            raise ArtifactError(f"{TOKENIZER}: {error}") from error
        self._server = server
        self._breaker = breaker or Breaker(AWAY_SECONDS, LONGEST_AWAY)
        self._call_seconds = call_seconds
        self._max_tokens = bundle.manifest.max_tokens
        self._rungs, self._far_beyond = len(bundle.manifest.ladder), bundle.manifest.far_beyond
        self._version, self._known = self._found(bundle)
        self.provider = f"{server.name}, version {self._version}"

    def scored(self, prompts: Sequence[Prompt]) -> list[Score]:
        """One score per prompt, in order; blocks. Raises ClassifierError; at once while the server is left out."""
        if not self._breaker.allows():
            raise ClassifierError(f"{self._server.name}: it failed a moment ago and is left out")
        inputs = self._inputs(prompts)
        self._breaker.started()
        try:
            answer = self._infer(self._version, inputs, self._call_seconds)
            found = scores(answer, self._known, len(prompts), self._far_beyond)
        except ClassifierError:
            self._breaker.failed()
            raise
        self._breaker.succeeded()
        return found

    def _inputs(self, prompts: Sequence[Prompt]) -> Inputs:
        """Features [n, WIDTH], tokens [n, length]. Raises ClassifierError."""
        try:
            inputs = self._featurize(prompts)
        except Exception as error:  # tokenizers raises a bare Exception
            raise ClassifierError(f"tokenizer: {error}") from error
        tokens = inputs["tokens"]
        length = min(-(-tokens.shape[1] // LENGTHS) * LENGTHS, self._max_tokens)
        more = length - tokens.shape[1]
        return {**inputs, "tokens": np.pad(tokens, ((0, 0), (0, more)), constant_values=-1)}

    def _infer(self, version: str, inputs: Inputs, seconds: float) -> Outputs:
        wanted = shapes(len(inputs["features"]), self._rungs, self._far_beyond)
        return self._server.infer(version, inputs, wanted, seconds)

    def _found(self, bundle: Bundle) -> tuple[str, list[bool]]:
        """The newest version that reproduces the parity sample, and which of its rungs [rungs] have token forecasts."""
        refused = []
        try:
            sample = self._inputs(bundle.parity.prompts)
            for version in self._server.versions():
                try:
                    return version, counted(self._infer(version, sample, START_SECONDS), bundle)
                except (ArtifactError, ClassifierError) as error:
                    refused.append(f"{version} ({error})")
        except ClassifierError as error:
            raise ArtifactError(str(error)) from error
        raise ArtifactError(
            f"{self._server.name}: no version is this bundle's: {', '.join(refused) or 'there is none'}"
        )
