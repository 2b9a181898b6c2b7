"""Encoders of 16 and 8 bits: nearly the same vectors, the same score alone and in company, bundles that serve."""

from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from router.bundle import manifest
from router.bundle.manifest import Bundle
from router.scoring.onnx import OnnxClassifier
from tests.support.synthetic import NO_REPORT, asked, outcomes_of
from tests.support.tiny_bert import tiny_bert
from training import pipeline
from training.certification.certify import Proofs
from training.cli import cli
from training.data.dataset import splits
from training.data.outcomes import Outcomes
from training.export import TOLERANCE, export
from training.model import embedding, fit
from training.model.embedding import GRAPHS, Embedding, embed
from training.model.fit import Fitted

PROMPTS = ["a", "a b c", "z y x w v u", "b a", "q " * 20, "a b c d e f g h i j k l m n o p q r s t u v w x y z"]
ABOUT: dict[str, Any] = {
    "backend_fingerprint": "fake",
    "data_hash": "0" * 64,
    "metrics": {},
    "report": NO_REPORT,
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Embedding]:
    """The same random weights in every precision."""
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(folder)
    return {precision: embedding.encoder(folder, precision) for precision in GRAPHS}


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """A small outcome table."""
    return outcomes_of(300)


def fitted(encoder: Embedding, outcomes: Outcomes) -> Fitted:
    return fit.fit(splits(outcomes)["fit"], encoder, candidates=fit.families_named(["pooled logit"]))


def test_half_precision_says_nearly_the_same(encoders: dict[str, Embedding]) -> None:
    assert np.abs(embed(encoders["fp16"], asked(PROMPTS)) - embed(encoders["fp32"], asked(PROMPTS))).max() < 0.01


def test_eight_bits_point_the_same_way(encoders: dict[str, Embedding]) -> None:
    short, full = embed(encoders["int8"], asked(PROMPTS)), embed(encoders["fp32"], asked(PROMPTS))
    assert ((short * full).sum(axis=1) / full.shape[1] > 0.99).all(), "their lengths are sqrt(d)"


def test_half_precision_holds_every_number(encoders: dict[str, Embedding]) -> None:
    graph = encoders["fp16"].graph.graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    assert all(np.isfinite(one).all() for one in constants.values())
    weights = [one.dtype for one in constants.values() if one.dtype.kind == "f" and one.size > 1]
    assert weights and set(weights) == {np.dtype(np.float16)}
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("precision", GRAPHS)
def test_a_vector_is_the_same_alone_and_in_company(precision: str, encoders: dict[str, Embedding]) -> None:
    encoder = encoders[precision]
    alone = np.concatenate([embed(encoder, asked([text])) for text in PROMPTS])
    for company in (PROMPTS, PROMPTS[::-1]):
        differ = np.abs(embed(encoder, asked(company)) - alone[[PROMPTS.index(text) for text in company]]).max()
        assert differ == 0 if precision == "int8" else differ < 1e-5


@pytest.mark.parametrize("precision", GRAPHS)
def test_a_prompt_without_tokens_is_zero(precision: str, encoders: dict[str, Embedding]) -> None:
    session = onnxruntime.InferenceSession(encoders[precision].graph.SerializeToString())
    (vectors,) = session.run(["vector"], {"tokens": np.array([[-1, -1], [3, -1]], dtype=np.int64)})
    assert np.abs(vectors[0]).max() == 0 and np.linalg.norm(vectors[1]) ** 2 == pytest.approx(12, rel=1e-3)


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=pytest.mark.slow), "int8"])
def test_a_bundle_serves_and_a_prompt_has_one_score(
    precision: str, encoders: dict[str, Embedding], outcomes: Outcomes, tmp_path: Path
) -> None:
    trained = fitted(encoders[precision], outcomes)
    export(trained, outcomes.ladder, Proofs((), (), {}), outcomes.prompts[:100], tmp_path / "bundle", **ABOUT)
    bundle = manifest.load(tmp_path / "bundle")
    assert (bundle.manifest.text_encoder, bundle.manifest.precision) == ("encoder", precision)
    onnx.checker.check_model(onnx.load_from_string(bundle.model), full_check=True)
    classifier = OnnxClassifier(bundle)
    prompts = [*asked(PROMPTS), *outcomes.prompts[:20]]
    together = classifier.scored(prompts)
    predicted = trained.predict(prompts).quality
    for prompt, score, expected in zip(prompts, together, predicted, strict=True):
        (alone,) = classifier.scored([prompt])
        assert score.quality == pytest.approx(alone.quality, abs=1e-6), prompt
        assert score.quality == pytest.approx(expected.tolist(), abs=TOLERANCE), prompt


def test_a_bundle_that_names_no_precision_has_the_full_one(bundle: Bundle) -> None:
    assert bundle.manifest.precision == "fp32"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_static_vectors_have_one_precision(precision: str, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    given = ["fit", "--outcomes", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--precision", precision]
    result = CliRunner().invoke(cli, given)
    assert result.exit_code == 2 and "needs --profile encoder" in result.output


def test_every_precision_is_a_choice() -> None:
    (option,) = [one for one in cli.commands["fit"].params if one.name == "precision"]
    assert isinstance(option.type, click.Choice)
    assert {("encoder", one) for one in option.type.choices} | {("static", "fp32")} == set(pipeline.PROFILES)
