"""Bundles with graphs that no service should run in its own process."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from router.bundle.features import NAMES, WIDTH
from router.bundle.manifest import MANIFEST, MODEL, PARITY, TOKENIZER, digest
from tests.conftest import another_bundle

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
RUNGS = 6
QUALITY = 0.5
"""P(correct) of every prompt and rung."""


def hostile(directory: Path, model: onnx.ModelProto | bytes, **manifest: object) -> Path:
    """A bundle that vouches for a graph, whatever the graph does."""
    another_bundle(directory, "hostile")
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (directory / MODEL).write_bytes(data)
    (directory / PARITY).write_text(json.dumps({"prompts": ["1 + 2"], "quality": [[QUALITY] * RUNGS]}))
    files = {name: digest(directory / name) for name in (MODEL, TOKENIZER, PARITY)}
    text = json.loads((directory / MANIFEST).read_text()) | {"files": files, "far_beyond": None} | manifest
    (directory / MANIFEST).write_text(json.dumps(text))
    return directory


def model_of(nodes: list[onnx.NodeProto], **tensors: np.ndarray) -> onnx.ModelProto:
    """A graph of a bundle's inputs and outputs; `nodes` make `row` [n, 1], which must be 0."""
    info = helper.make_tensor_value_info
    nodes = [
        *nodes,
        helper.make_node("MatMul", ["row", "zeros"], ["mean_tokens"]),
        helper.make_node("Add", ["mean_tokens", "half"], ["quality"]),
        helper.make_node("Identity", ["tokens"], ["unused"]),
        helper.make_node("Unsqueeze", ["mean_tokens", "axis"], ["column"]),
        helper.make_node("Concat", ["column", "column", "column"], ["token_quantiles"], axis=2),
    ]
    constants = {
        "zeros": np.zeros((1, RUNGS), np.float32), "half": np.array(QUALITY, np.float32), "axis": np.array([2]),
        "one": np.ones((1, 1), np.float32), "most": np.array(2**62), "yes": np.array(True), **tensors,
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "hostile",
        [info("features", FLOAT, ["n", WIDTH]), info("tokens", INT64, ["n", "length"])],
        [info(name, FLOAT, None) for name in ("quality", "mean_tokens", "token_quantiles")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def digits() -> list[onnx.NodeProto]:
    """Nodes that make `digits` [n, 1]: log(1 + the digits of a prompt)."""
    place = NAMES.index("digits")
    axes = {"starts": np.array([place]), "ends": np.array([place + 1]), "axes": np.array([1])}
    constants = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(a)) for name, a in axes.items()]
    return [*constants, helper.make_node("Slice", ["features", *axes], ["digits"])]


def endless(only_without_digits: bool = False) -> onnx.ModelProto:
    """A graph that loops for ever, or does so only for prompts without digits: those of the sample have some."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["further"]), helper.make_node("Mul", ["x", "one"], ["y"])],
        "body",
        [info("i", INT64, []), info("go_on", BOOL, []), info("x", FLOAT, None)],
        [info("further", BOOL, []), info("y", FLOAT, None)],
    )
    reduce = helper.make_node("ReduceMax", ["digits"], ["largest"], keepdims=0)
    nothing = helper.make_node("Constant", [], ["nothing"], value=numpy_helper.from_array(np.array(0.0, np.float32)))
    when = helper.make_node("Equal", ["largest", "nothing"], ["when"])
    loop = helper.make_node("Loop", ["most", "when" if only_without_digits else "yes", "digits"], ["row"], body=body)
    return model_of([*digits(), reduce, nothing, when, loop])


def greedy() -> onnx.ModelProto:
    """A graph that asks for 64 GiB."""
    shape = helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([1 << 17, 1 << 17])))
    fill = helper.make_node("ConstantOfShape", ["shape"], ["much"])
    total = helper.make_node("ReduceMax", ["much"], ["most_of_it"], keepdims=0)
    row = helper.make_node("Mul", ["digits", "most_of_it"], ["row"])
    return model_of([*digits(), shape, fill, total, row])
