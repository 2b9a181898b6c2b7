"""Eight-bit matrix products for an encoder on a CPU, one prompt at a time.

The activations of a product share one scale, the range of all values multiplied (ONNX's DynamicQuantizeLinear). In a
batch that range covers every prompt, so a prompt's vector would depend on its neighbours, while a certificate assumes
that each prompt has one score. So the graph goes through a batch prompt by prompt, without padding: vectors are equal
bit by bit, alone and in a batch. A CPU loses nothing by it.

The last bit of a sum may decide how a value is rounded, and later values then differ by as much as 8 bits err. So a
bundle is valid for the kind of CPU and the version of ONNX Runtime that it was fitted on; others fail its parity
sample.
"""

import numpy as np
import onnx
from onnx import TensorProto, compose, helper

from router.scoring.outputs import VECTOR
from training.model.onnx_graph import TOKENS, Graph, Weights

LARGEST = 63
"""Largest quantised weight. CPUs without VNNI add two products in 16 bits, which 255 * 127 twice would overflow."""

ROW, ALONE = "row", "alone"
"""Names of one prompt's token ids [length] and of its vector [d]."""


class Quantised(Graph):
    """A graph for one prompt at a time, whose linear layers multiply integers; each column of weights has its scale."""

    def __init__(self) -> None:
        super().__init__()
        first, one = self.constant([0], np.int64), self.constant([1], np.int64)
        real = self.add("Cast", [self.add("GreaterOrEqual", [ROW, first])], to=TensorProto.INT64)
        end = self.add("Max", [self.add("ReduceSum", [real], keepdims=1), one])  # an empty product has no range
        self.add("Unsqueeze", [self.add("Slice", [ROW, first, end]), first], TOKENS)

    def dense(self, x: str, weights: Weights, name: str) -> str:
        """Add the linear layer `name` of a checkpoint: integers are multiplied, then scaled back."""
        # One scale per column: a single large weight would otherwise coarsen all others. tiny avoids 0 / 0.
        table = weights[f"{name}.weight"].T
        scale = np.maximum(np.abs(table).max(axis=0), np.finfo(np.float32).tiny * LARGEST) / LARGEST
        rounded, by, zero = self._rounded(x)
        integers = self.add("MatMulInteger", [rounded, self.constant(np.rint(table / scale), np.int8), zero])
        scales = self.add("Mul", [by, self.constant(scale)])
        product = self.add("Mul", [self.add("Cast", [integers], to=TensorProto.FLOAT), scales])
        return self.add("Add", [product, self.constant(weights[f"{name}.bias"])])

    def model(self, dimensions: int) -> onnx.ModelProto:
        """The finished graph: ONNX's Scan runs the nodes so far on each prompt of a batch in turn."""
        self.add("Squeeze", [VECTOR, self.constant([0], np.int64)], ALONE)
        model = super().model(dimensions)
        body = helper.make_graph(
            model.graph.node,
            "prompt",
            [helper.make_tensor_value_info(ROW, TensorProto.INT64, ["length"])],
            [helper.make_tensor_value_info(ALONE, TensorProto.FLOAT, [dimensions])],
            model.graph.initializer,
        )
        inner = compose.add_prefix_graph(body, "prompt/")
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.append(helper.make_node("Scan", [TOKENS], [VECTOR], body=inner, num_scan_inputs=1))
        return model

    def _rounded(self, x: str) -> list[str]:
        """Add the quantisation of a value; returns the names of its 8 bits, its scale and its zero point."""
        names = [f"{part}{len(self._nodes)}" for part in ("rounded", "scale", "zero")]
        self._nodes.append(helper.make_node("DynamicQuantizeLinear", [x], names))
        return names
