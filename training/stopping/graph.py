"""The predictions of a learned stopping rule as an ONNX graph, compared with those that were certified."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from router.stopping.evidence import WIDTH
from router.stopping.rules import LearnedRule, StoppingCertificate
from training.model.onnx_graph import IR_VERSION, OPSET
from training.stopping.learned import Lookahead, features
from training.stopping.stage import Within

PARITY_CUTS = 16
"""Cuts whose predictions a bundle carries, so that serving can check its own."""


@dataclass(frozen=True)
class Exported:
    """The graph for a bundle.

    Attributes:
        cuts: position, evidence and quality [rungs] of some cuts.
        worst: largest difference in P(correct) between ONNX Runtime and the certified predictions.
    """

    graph: bytes
    cuts: list[tuple[int, list[float], list[float]]]
    worst: float


def exported(certificates: Sequence[StoppingCertificate], within: Within | None) -> Exported | None:
    """The graph of the certified learned rules; None where none is certified."""
    if within is None or within.lookahead is None:
        return None
    if not any(isinstance(one.rule, LearnedRule) for one in certificates):
        return None
    sample, lookahead = within.samples["certify"], within.lookahead
    seen = features(sample.traces, sample.quality)[:, :-1]
    position = np.broadcast_to(np.arange(seen.shape[1]), seen.shape[:2]).ravel()
    evidence = seen.reshape(-1, WIDTH).astype(np.float32)
    graph = build(lookahead).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (quality,) = session.run(["quality"], {"position": position, "evidence": evidence})
    expected = lookahead.quality(seen).reshape(quality.shape)
    cuts = [
        (int(position[i]), evidence[i].tolist(), expected[i].tolist())
        for i in np.random.default_rng(0).permutation(len(position))[:PARITY_CUTS]
    ]
    return Exported(graph, cuts, float(np.abs(quality - expected).max()))


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
