"""The predictions of a learned stopping rule as an ONNX graph."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from router.evidence import WIDTH
from training.model.onnx_graph import IR_VERSION, OPSET
from training.stopping.learned import Lookahead


def build(lookahead: Lookahead) -> onnx.ModelProto:
    """The graph: position [n] and evidence [n, WIDTH] -> quality [n, rungs] and more_tokens [n, rungs]."""
    rungs = lookahead.offsets.shape[1]
    nodes = [
        helper.make_node("Gather", ["slopes", "position"], ["slopes_here"]),
        helper.make_node("Gather", ["offsets", "position"], ["offsets_here"]),
        helper.make_node("Gather", ["more", "position"], ["more_tokens"]),
        helper.make_node("Unsqueeze", ["evidence", "one"], ["row"]),
        helper.make_node("MatMul", ["row", "slopes_here"], ["products"]),
        helper.make_node("Squeeze", ["products", "one"], ["sums"]),
        helper.make_node("Add", ["sums", "offsets_here"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["quality"]),
    ]
    tables = {name: getattr(lookahead, name).astype(np.float32) for name in ("slopes", "offsets", "more")}
    constants = tables | {"one": np.array([1], np.int64)}
    graph = helper.make_graph(
        nodes,
        "lookahead",
        [
            helper.make_tensor_value_info("position", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["n", WIDTH]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", rungs]) for name in ("quality", "more_tokens")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model
