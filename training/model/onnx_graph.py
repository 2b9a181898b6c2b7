"""Building blocks of an embedding's graph: token ids [n, length], padded with -1 -> vectors [n, d]."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from router.scoring.outputs import VECTOR

OPSET = 20
IR_VERSION = 10

TOKENS = "tokens"
"""Name of the input; that of the output is VECTOR."""

Weights = dict[str, NDArray[np.float32]]
"""Arrays of a checkpoint by name."""


class Graph:
    """An ONNX graph under construction; values are named by number.

    Args:
        number: type of the weights and of all computation with them.

    Attributes:
        kind: ONNX's code for that type.
    """

    def __init__(self, number: type[np.floating[Any]] = np.float32) -> None:
        self._number = number
        self.kind = helper.np_dtype_to_tensor_dtype(np.dtype(number))
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = output or f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: ArrayLike, dtype: type | None = None) -> str:
        """Add a constant; returns its name."""
        name = f"c{len(self._constants)}"
        array: NDArray[Any] = np.ascontiguousarray(np.asarray(value, dtype=dtype or self._number))
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def dense(self, x: str, weights: Weights, name: str) -> str:
        """Add the linear layer `name` of a checkpoint."""
        product = self.add("MatMul", [x, self.constant(weights[f"{name}.weight"].T)])
        return self.add("Add", [product, self.constant(weights[f"{name}.bias"])])

    def norm(self, x: str, weights: Weights, name: str, config: dict[str, int]) -> str:
        """Add the layer norm `name` of a checkpoint."""
        scale, bias = (self.constant(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.add("LayerNormalization", [x, scale, bias], epsilon=float(config["layer_norm_eps"]))

    def mask(self) -> str:
        """Add the mask [n, length]: 1 for a token, 0 for padding."""
        # Padding is -1 and not 0, since 0 is a token of most vocabularies.
        real = self.add("GreaterOrEqual", [TOKENS, self.constant(0, np.int64)])
        return self.add("Cast", [real], to=TensorProto.FLOAT)

    def pool(self, x: str, mask: str, dimensions: int) -> None:
        """Add the output: the sum of `x` [n, length, d] over tokens, scaled to length sqrt(d); 0 without tokens.

        The sum replaces the mean, because scaling to a fixed length makes them equal.
        """
        row = self.add("Unsqueeze", [mask, self.constant([1], np.int64)])
        total = self.add("Squeeze", [self.add("MatMul", [row, x]), self.constant([1], np.int64)])
        self.unit(total, dimensions)

    def unit(self, total: str, dimensions: int) -> None:
        """Add the output: vectors [n, d] scaled to length sqrt(d); the zero vector stays zero."""
        # A text without tokens has the zero vector, which must not be divided by its length.
        length = self.add("ReduceL2", [total, self.constant([1], np.int64)], keepdims=1)
        unit = self.add("Div", [total, self.add("Max", [length, self.constant(1e-9, np.float32)])])
        self.add("Mul", [unit, self.constant(dimensions**0.5, np.float32)], VECTOR)

    def model(self, dimensions: int) -> onnx.ModelProto:
        """The finished graph."""
        tokens = helper.make_tensor_value_info(TOKENS, TensorProto.INT64, ["n", "length"])
        vector = helper.make_tensor_value_info(VECTOR, TensorProto.FLOAT, ["n", dimensions])
        graph = helper.make_graph(self._nodes, "embedding", [tokens], [vector], self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
