"""Embeddings as graphs: against NumPy, against the definition of BERT, and whatever a batch brings along."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.special import erf, softmax
from tokenizers import Tokenizer

from tests.support.synthetic import asked
from tests.support.tiny_bert import CONFIG, WORDS, tiny_bert
from training.model import embedding
from training.model.embedding import Embedding, embed
from training.model.onnx_graph import Weights

PROMPTS = ["a", "a b c", "z y x w v u", "b a", "q " * 20]


def reference(weights: Weights, ids: list[int]) -> NDArray[np.float64]:
    """One text through BERT as Devlin et al. (2019) define it, pooled, of length sqrt(d); in 64 bits."""
    w: dict[str, Any] = {name: value.astype(float) for name, value in weights.items()}
    heads, size = CONFIG["num_attention_heads"], CONFIG["hidden_size"]

    def dense(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(axis=1, keepdims=True)
        return centred / centred.std(axis=1, keepdims=True) * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(CONFIG["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        q, k, v = (dense(x, f"{at}.attention.self.{name}") for name in ("query", "key", "value"))
        mixed = []
        for part in np.array_split(np.arange(size), heads):
            shares = softmax(q[:, part] @ k[:, part].T / np.sqrt(len(part)), axis=1)
            mixed.append(shares @ v[:, part])
        told = dense(np.hstack(mixed), f"{at}.attention.output.dense")
        x = norm(x + told, f"{at}.attention.output.LayerNorm")
        inner = dense(x, f"{at}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(x + dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    pooled = x.sum(axis=0)
    return np.asarray(pooled / np.linalg.norm(pooled) * np.sqrt(size))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Embedding]:
    """Random weights, and the graph made of them."""
    folder = tmp_path_factory.mktemp("bert")
    return tiny_bert(folder), embedding.encoder(folder)


def test_the_encoder_is_bert(checkpoint: tuple[Weights, Embedding]) -> None:
    weights, encoder = checkpoint
    vectors = embed(encoder, asked(PROMPTS))
    for text, vector in zip(PROMPTS, vectors, strict=True):
        wanted = reference(weights, [WORDS.index(word) for word in text.split()])
        assert np.abs(vector - wanted).max() < 1e-5, text


@pytest.fixture(scope="module")
def static() -> Embedding:
    """The profile that ships."""
    return embedding.static()


def test_the_static_profile_is_the_mean_direction_of_its_token_vectors(static: Embedding) -> None:
    folder = embedding._installed("wordllama", "")
    (table,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
    tokenizer = Tokenizer.from_str(static.tokenizer.decode())
    texts = ["2 + 2 =", "Sort these numbers", "漢字"]
    for text, vector in zip(texts, embed(static, asked(texts)), strict=True):
        ids = tokenizer.encode(text).ids  # with the marker of the beginning, as wordllama itself does
        total = table[ids, : embedding.DIMENSIONS].astype(np.float16).astype(float).sum(axis=0)
        assert np.abs(vector - total / np.linalg.norm(total) * 8).max() < 1e-4, text


@pytest.mark.parametrize("profile", ["static", "encoder"])
def test_a_vector_does_not_depend_on_its_batch(
    profile: str, static: Embedding, checkpoint: tuple[Weights, Embedding]
) -> None:
    chosen = static if profile == "static" else checkpoint[1]
    together = embed(chosen, asked(PROMPTS))
    alone = np.concatenate([embed(chosen, asked([text])) for text in PROMPTS])
    assert np.abs(together - alone).max() < 1e-5
    backwards = embed(chosen, asked(PROMPTS[::-1]))[::-1]
    assert np.abs(together - backwards).max() < 1e-5


@pytest.mark.parametrize("profile", ["static", "encoder"])
def test_a_prompt_without_tokens_is_zero_or_harmless(
    profile: str, static: Embedding, checkpoint: tuple[Weights, Embedding]
) -> None:
    chosen = static if profile == "static" else checkpoint[1]
    session = onnxruntime.InferenceSession(chosen.graph.SerializeToString())
    (vector,) = session.run(["vector"], {"tokens": np.full((1, 3), -1, dtype=np.int64)})
    assert np.isfinite(vector).all() and np.abs(vector).max() == 0


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        embedding.encoder(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        embedding._installed("no_such_package", "needed: pip install no-such-package")
