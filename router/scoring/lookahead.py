"""The lookahead of a learned stopping rule in ONNX Runtime."""

import math

import numpy as np

from router.bundle.manifest import LOOKAHEAD, Bundle
from router.errors import ArtifactError, ClassifierError
from router.onnx_session import BoundedSession, OverrunError, open_session
from router.scoring.outputs import PARITY_TOLERANCE
from router.stopping.evidence import WIDTH, Evidence, numbers

SECONDS = 1.0
"""Longest run; one takes microseconds."""

INPUTS = {"position": "tensor(int64)", "evidence": "tensor(float)"}
OUTPUTS = ("quality", "more_tokens")


class OnnxLookahead:
    """Implements `Lookahead` with a bundle's second graph, on the event loop.

    Raises:
        ArtifactError: the graph does not load, or does not reproduce the bundle's parity sample.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._rungs = len(bundle.manifest.ladder)
        try:
            session = open_session(bundle.lookahead)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ArtifactError(f"{LOOKAHEAD}: ONNX Runtime refuses it: {error}") from error
        if (found := {one.name: one.type for one in session.get_inputs()}) != INPUTS:
            raise ArtifactError(f"{LOOKAHEAD}: its inputs are {found}, not {INPUTS}"[:400])
        self._session = BoundedSession(session, SECONDS)
        self._verify(bundle)

    def ahead(self, position: int, evidence: Evidence) -> tuple[list[float], list[float]]:
        """P(correct) at every rung, and the tokens until there, from the evidence at a cut. Raises ClassifierError."""
        return self._ahead(position, numbers(evidence))

    def _ahead(self, position: int, seen: list[float]) -> tuple[list[float], list[float]]:
        inputs = {"position": np.array([position]), "evidence": np.array([seen], np.float32)}
        try:
            quality, more = self._session.run(OUTPUTS, inputs)
        except OverrunError as error:
            raise ClassifierError(f"{LOOKAHEAD}: {error}") from error
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ClassifierError(f"{LOOKAHEAD}: ONNX Runtime: {error}") from error
        if quality.shape != (1, self._rungs) or more.shape != (1, self._rungs):
            raise ClassifierError(f"{LOOKAHEAD}: its outputs do not fit a ladder of {self._rungs} rungs")
        figures = quality[0].tolist(), more[0].tolist()
        if not all(math.isfinite(one) for figure in figures for one in figure):
            raise ClassifierError(f"{LOOKAHEAD}: it returned a number that is not finite")
        return figures

    def _verify(self, bundle: Bundle) -> None:
        """Raises ArtifactError unless the graph gives the figures of training."""
        if not bundle.parity.cuts:
            raise ArtifactError(f"{LOOKAHEAD}: the parity sample has no cuts to check it by")
        for position, seen, expected in bundle.parity.cuts:
            if len(seen) != WIDTH or not 0 <= position < self._rungs - 1:
                raise ArtifactError(f"{LOOKAHEAD}: the parity sample has a cut of another kind")
            try:
                quality, _ = self._ahead(position, seen)
            except ClassifierError as error:
                raise ArtifactError(str(error)) from error
            if not np.allclose(quality, expected, rtol=0, atol=PARITY_TOLERANCE):
                raise ArtifactError(f"{LOOKAHEAD}: it does not reproduce the parity sample")
