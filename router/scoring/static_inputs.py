"""The classifier's inputs of prompts, to be kept in place of their texts: hand features and the vector of the graph."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.bundle.featurizer import Featurizer
from router.bundle.manifest import MODEL, Bundle
from router.domain import Prompt
from router.errors import ArtifactError
from router.onnx_session import open_session
from router.scoring.outputs import VECTOR


class StaticInputs:
    """Extracts inputs with a bundle of static vectors, in this thread: a prompt takes as long as a score.

    Training extracts the same with `training.model.fit.inputs`, to the last digit.

    Raises:
        ArtifactError: the bundle's graph does not load, or says nothing of its vector.
    """

    def __init__(self, bundle: Bundle) -> None:
        try:
            self._featurize = Featurizer(bundle.tokenizer, bundle.manifest.max_tokens)
            self._session = open_session(bundle.model)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ArtifactError(f"{MODEL}: {error}") from error
        if VECTOR not in [one.name for one in self._session.get_outputs()]:
            raise ArtifactError(f"{MODEL}: its graph has no output {VECTOR!r}: `budget-train fit` makes one that has")

    def __call__(self, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
        """Inputs [prompts, width]."""
        found = self._featurize(prompts)
        (vectors,) = self._session.run([VECTOR], found)
        return np.hstack([found["features"], vectors])
