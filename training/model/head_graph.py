"""A fitted model as an ONNX graph: features and vectors -> quality, mean tokens, token quantiles.

A decision runs this graph on a single prompt, where every node costs as much as the work inside it. So scaling is
folded into the first layer, and the members of an average become one network.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.utils
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper
from scipy.linalg import block_diag

from router.bundle.manifest import QUANTILES
from router.domain import BudgetLadder
from router.scoring.outputs import NOVELTY, VECTOR
from training.model.calibration import LEAST
from training.model.embedding import JOINED, stack
from training.model.families import Layers
from training.model.fit import Fitted
from training.model.onnx_graph import OPSET

UNCAPPED = 1e9
"""Stands for "no cap" in the graph: more tokens than any rung uses."""


def build_graph(fitted: Fitted, ladder: BudgetLadder, double: bool = False) -> onnx.ModelProto:
    """The graph of a fitted model.

    Args:
        double: compute P(correct) in 64 bits, for a model that is too steep for 32.

    Inputs are features [n, width] and tokens [n, length]; outputs are quality [n, rungs], mean_tokens [n, rungs],
    token_quantiles [n, rungs, quantiles] and, where a distance is known at which a prompt is far, novelty [n, 1].
    """
    nodes, precise = _Nodes(), _Nodes(np.float64 if double else np.float32)
    width = fitted.scale[0].n_features_in_
    _quality(precise, fitted)
    _tokens(nodes, fitted)
    rungs = len(ladder)
    outputs: dict[str, list[str | int | None]] = {
        "quality": ["n", rungs],
        "mean_tokens": ["n", rungs],
        "token_quantiles": ["n", rungs, len(QUANTILES)],
    }
    if fitted.far_beyond is not None:
        _novelty(nodes, fitted)
        outputs[NOVELTY] = ["n", 1]
    graph = helper.make_graph(
        precise.nodes + nodes.nodes,
        "head",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        precise.weights + nodes.weights,
    )
    head = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model = stack(fitted.embedding, head)
    onnx.checker.check_model(model, full_check=True)
    return model


def head_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """The part of a graph behind its embedding: "joined" [n, width], features and vector -> the same outputs.

    It computes from stored inputs what the whole graph computes from a prompt, to the last digit.
    """
    outputs = [one.name for one in model.graph.output if one.name != VECTOR]
    typed = onnx.shape_inference.infer_shapes(model)
    return onnx.utils.Extractor(typed).extract_model([JOINED], outputs)


class _Nodes:
    """Nodes and weights of a graph under construction; weights have the type `number` unless they say otherwise."""

    def __init__(self, number: type[np.floating[Any]] = np.float32) -> None:
        self.number = number
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(self, name: str, value: ArrayLike, dtype: type | None = None) -> str:
        """Add a constant; returns its name."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype or self.number), name))
        return name

    def gemm(self, value: str, weights: ArrayLike, biases: ArrayLike, output: str) -> str:
        """Add value [n, inputs] @ weights [inputs, outputs] + biases [outputs]; returns the output's name."""
        return self.add(
            "Gemm", [value, self.weight(f"{output}/w", weights), self.weight(f"{output}/b", biases)], output
        )

    def layers(self, layers: Layers, value: str, prefix: str) -> str:
        """Add fully connected layers with ReLU between them; returns the name of the last output."""
        for i, (weights, biases) in enumerate(layers):
            if i:
                value = self.add("Relu", [value], f"{prefix}/relu{i}")
            value = self.gemm(value, weights, biases, f"{prefix}/{i}")
        return value


def _quality(nodes: _Nodes, fitted: Fitted) -> None:
    """Add the members, their mean, calibration and bounds, in the type of the nodes."""
    members, cured = fitted.head.members, fitted.head.cured
    double = nodes.number is np.float64
    inputs = nodes.add("Cast", ["features"], "precise", to=TensorProto.DOUBLE) if double else "features"
    p = nodes.add("Sigmoid", [nodes.layers(_fold_scaling(fitted, _merge(members)), inputs, "members")], "p")
    rungs = members[0][-1][1].size - cured
    if cured:
        p = nodes.add("Reshape", [p, nodes.weight("each", [0, len(members), 1 + rungs], np.int64)], "by_member")
        nodes.nodes.append(
            helper.make_node("Split", [p, nodes.weight("sizes", [1, rungs], np.int64)], ["pi", "rate"], axis=2)
        )
        p = nodes.add("Flatten", [nodes.add("Mul", ["pi", "rate"], "product")], "products")
    # Sigmoids cannot be averaged before they are applied, so the mean is a product with a constant matrix.
    each = np.eye(rungs)
    mean = np.tile(each, (len(members), 1)) / len(members)
    if fitted.beta is None:
        p = nodes.add("MatMul", [p, nodes.weight("mean", mean)], "raw")
    else:  # p and 1 - p beside each other, then their logarithms
        both = nodes.gemm(p, np.hstack([mean, -mean]), [*[0.0] * rungs, *[1.0] * rungs], "both")
        inside = nodes.add("Clip", [both, nodes.weight("least", LEAST), nodes.weight("most", 1 - LEAST)], "inside")
        slopes = np.vstack([fitted.beta.up * each, -fitted.beta.down * each])
        logit = nodes.gemm(nodes.add("Log", [inside], "logs_of_both"), slopes, fitted.beta.offsets, "logit")
        p = nodes.add("Sigmoid", [logit], "calibrated")
    bounds = [nodes.weight("low", fitted.bound), nodes.weight("high", 1 - fitted.bound)]
    bounded = nodes.add("Clip", [p, *bounds], "bounded" if double else "quality")
    if double:
        nodes.add("Cast", [bounded], "quality", to=TensorProto.FLOAT)


def _tokens(nodes: _Nodes, fitted: Fitted) -> None:
    """Add mean and quantiles of the tokens: sums over rungs of `Lengths.steps`, between 0 and the rung's cap.

    They are NaN for rungs without recorded counts.
    """
    lengths, (weights, biases) = fitted.lengths, fitted.lengths.steps()
    longer = nodes.layers(_fold_scaling(fitted, _merge(lengths.head.members)), "features", "lengths")
    longer = nodes.add("Sigmoid", [longer], "longer")
    steps = nodes.gemm(longer, weights.reshape(len(weights), -1), biases.ravel(), "steps")
    by_rung = nodes.add("Reshape", [steps, nodes.weight("by_rung/shape", [0, *biases.shape], np.int64)], "by_rung")
    sums = nodes.add("CumSum", [by_rung, nodes.weight("over_rungs", 1, np.int64)], "sums")
    caps = np.minimum(np.nan_to_num(lengths.caps, nan=UNCAPPED), UNCAPPED)[None, :, None]
    # NaN is added last, since ONNX does not promise that Min and Relu keep it.
    tokens = nodes.add("Min", [nodes.add("Relu", [sums], "positive"), nodes.weight("caps", caps)], "capped")
    if np.isnan(lengths.caps).any():
        unknown = np.where(np.isnan(lengths.caps), np.nan, 0.0)[None, :, None]
        tokens = nodes.add("Add", [tokens, nodes.weight("absent", unknown)], "known")
    sizes = nodes.weight("mean_and_quantiles", [1, len(QUANTILES)], np.int64)
    nodes.nodes.append(helper.make_node("Split", [tokens, sizes], ["means", "token_quantiles"], axis=2))
    nodes.add("Squeeze", ["means", nodes.weight("last", [2], np.int64)], "mean_tokens")


def _novelty(nodes: _Nodes, fitted: Fitted) -> None:
    """Add the squared distance from the prompts that were fitted on."""
    distances = nodes.gemm("features", fitted.novelty.weights, fitted.novelty.biases, "whitened")
    nodes.add("ReduceSumSquare", [distances, nodes.weight("coordinates", [1], np.int64)], NOVELTY, keepdims=1)


def _merge(members: Sequence[Layers]) -> Layers:
    """One network with the outputs of all members, which have equal shapes; block-diagonal weights keep them apart."""
    first, *others = zip(*members, strict=True)
    merged = [(np.hstack([w for w, _ in first]), np.concatenate([b for _, b in first]))]
    return merged + [(block_diag(*(w for w, _ in layer)), np.concatenate([b for _, b in layer])) for layer in others]


def _fold_scaling(fitted: Fitted, layers: Layers) -> Layers:
    """The same network for unscaled inputs: w (x - mean) / std + b = (w / std) x + (b - w mean / std).

    Columns that scaling drops get weight zero.
    """
    (weights, biases), *others = layers
    select, standardise = fitted.scale
    slopes = weights / standardise.scale_[:, None]
    unscaled = np.zeros((select.n_features_in_, weights.shape[1]))
    unscaled[select.get_support()] = slopes
    return [(unscaled, biases - standardise.mean_ @ slopes), *others]
