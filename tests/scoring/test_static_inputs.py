"""Inputs that are kept in place of texts."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from router.bundle import manifest
from router.domain import Prompt
from router.errors import ArtifactError
from router.scoring.outputs import VECTOR
from router.scoring.static_inputs import StaticInputs
from tests.conftest import MODELS
from training.model import embedding
from training.model.fit import inputs

BUNDLE = manifest.load(MODELS / "pocket-router")
PROMPTS = [Prompt.of(text) for text in ("2 + 2 =", "How many legs do 3 ducks and 2 dogs have?", "", "é" * 5_000)]


def test_they_are_those_of_training() -> None:
    found = StaticInputs(BUNDLE)(PROMPTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, inputs(embedding.static(), PROMPTS), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1:2], StaticInputs(BUNDLE)(PROMPTS[1:2]), rtol=0, atol=1e-6)


def test_an_older_bundle_says_nothing_of_its_vector() -> None:
    graph = onnx.load_from_string(BUNDLE.model)
    kept = [one for one in graph.graph.output if one.name != VECTOR]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    with pytest.raises(ArtifactError, match=VECTOR):
        StaticInputs(replace(BUNDLE, model=graph.SerializeToString()))
