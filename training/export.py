"""Fitted models -> one ONNX graph -> a bundle, written aside and moved into place in one step."""

import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import ArrayLike
from onnx import TensorProto, compose, helper, numpy_helper
from skl2onnx import to_onnx

from router import features
from router.artifact import (
    FORMAT_VERSION,
    MANIFEST,
    MODEL,
    PARITY,
    QUANTILES,
    TOKENIZER,
    Manifest,
    digest,
    write_manifest,
)  # fmt: skip
from router.domain import BudgetLadder
from training import judge, report
from training.calibrate import LEAST
from training.certify import Proofs, choose
from training.embedding import OPSET, stack
from training.fit import Fitted, Prediction
from training.forms import Layers

TOLERANCE = 1e-5
PARITY_PROMPTS = 16
UNCAPPED = 1e9


class ExportError(RuntimeError):
    """The graph does not say what scikit-learn says."""


def export(
    fitted: Fitted, ladder: BudgetLadder, proofs: Proofs, sample: list[str], directory: Path, **about: Any
) -> None:
    """Write a bundle to `directory`, replacing what is there.

    Args:
        sample: prompts on which graph and scikit-learn must agree; the first ones become the parity sample.
        about: the manifest's backend_fingerprint, data_hash and metrics, and the report.

    Raises:
        ExportError: quality differs by more than TOLERANCE, or any decision differs.
    """
    model = build_graph(fitted, ladder)
    expected = fitted.predict(sample)
    check(fitted, model, sample, expected, proofs)
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        _write(fitted, model, ladder, proofs, sample[:PARITY_PROMPTS], expected, aside, about)
        _move(aside, directory)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def build_graph(fitted: Fitted, ladder: BudgetLadder) -> onnx.ModelProto:
    """features [n, width], tokens [n, length] -> quality, mean_tokens [n, rungs], token_quantiles [n, rungs, 3]."""
    width = fitted.scale[0].n_features_in_
    example = np.zeros((1, width), dtype=np.float32)
    scale = to_onnx(fitted.scale, example, target_opset={"": OPSET, "ai.onnx.ml": 3})
    scale = compose.add_prefix(scale, "scale/")
    nodes = _Nodes()
    nodes.add("Identity", ["features"], scale.graph.input[0].name)
    nodes.nodes += scale.graph.node
    nodes.weights += scale.graph.initializer
    scaled = scale.graph.output[0].name
    _quality(nodes, fitted, scaled)
    _tokens(nodes, fitted, scaled)
    rungs = len(ladder)
    outputs: dict[str, list[str | int | None]] = {
        "quality": ["n", rungs],
        "mean_tokens": ["n", rungs],
        "token_quantiles": ["n", rungs, len(QUANTILES)],
    }
    graph = helper.make_graph(
        nodes.nodes,
        "head",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        nodes.weights,
    )
    head = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    )
    model = stack(fitted.embedding, head)
    onnx.checker.check_model(model, full_check=True)
    return model


def check(fitted: Fitted, model: onnx.ModelProto, sample: list[str], expected: Prediction, proofs: Proofs) -> None:
    """Raise ExportError unless ONNX Runtime and scikit-learn agree on the sample."""
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    served = judge.run(session, fitted.embedding.tokenizer, fitted.embedding.max_tokens, sample)
    worst = float(np.abs(served.quality - expected.quality).max())
    if not worst <= TOLERANCE:
        raise ExportError(f"ONNX differs from scikit-learn by {worst:.1e} in P(correct)")
    for certificate in proofs.relative:
        ours, theirs = (choose(p.quality, p.cost, certificate.threshold) for p in (served, expected))
        if (ours != theirs).any():
            raise ExportError(f"{(ours != theirs).sum()} decisions differ between ONNX and scikit-learn")
    for certificate in proofs.absolute:
        differ = ((served.quality >= certificate.threshold) != (expected.quality >= certificate.threshold)).any(axis=1)
        if differ.any():
            raise ExportError(f"{differ.sum()} decisions differ between ONNX and scikit-learn")


class _Nodes:
    """Nodes and weights of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(self, name: str, value: ArrayLike, dtype: type = np.float32) -> str:
        """A constant, whose name is returned."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def layers(self, layers: Layers, value: str, prefix: str) -> str:
        """Fully connected layers with ReLU between them; the name of the last one's output."""
        for i, (weights, biases) in enumerate(layers):
            if i:
                value = self.add("Relu", [value], f"{prefix}/relu{i}")
            names = self.weight(f"{prefix}/w{i}", weights), self.weight(f"{prefix}/b{i}", biases)
            value = self.add("Gemm", [value, *names], f"{prefix}/out{i}")
        return value


def _quality(nodes: _Nodes, fitted: Fitted, scaled: str) -> None:
    """Members, their mean, calibration, bounds."""
    members = []
    for i, layers in enumerate(fitted.head.members):
        p = nodes.add("Sigmoid", [nodes.layers(layers, scaled, f"member{i}")], f"member{i}/p")
        if fitted.head.cured:
            rungs = nodes.weight(f"member{i}/sizes", [1, layers[-1][1].size - 1], np.int64)
            nodes.nodes.append(helper.make_node("Split", [p, rungs], [f"member{i}/pi", f"member{i}/rate"], axis=1))
            p = nodes.add("Mul", [f"member{i}/pi", f"member{i}/rate"], f"member{i}/product")
        members.append(p)
    p = nodes.add("Mean", members, "raw")
    if fitted.beta is not None:
        p = nodes.add("Clip", [p, nodes.weight("least", LEAST), nodes.weight("most", 1 - LEAST)], "inside")
        q = nodes.add("Sub", [nodes.weight("unit", 1.0), p], "complement")
        left = nodes.add("Mul", [nodes.add("Log", [p], "ln_p"), nodes.weight("up", fitted.beta.up)], "left")
        right = nodes.add("Mul", [nodes.add("Log", [q], "ln_q"), nodes.weight("down", fitted.beta.down)], "right")
        logit = nodes.add(
            "Sub", [nodes.add("Add", [left, nodes.weight("offsets", fitted.beta.offsets)], "sum"), right], "logit"
        )
        p = nodes.add("Sigmoid", [logit], "calibrated")
    nodes.add("Clip", [p, nodes.weight("low", fitted.bound), nodes.weight("high", 1 - fitted.bound)], "quality")


def _tokens(nodes: _Nodes, fitted: Fitted, scaled: str) -> None:
    """min(cap, max(0, exp(prediction + residual) - 1)) per rung; NaN for rungs without recorded counts."""
    layers = list(zip(fitted.tokens.coefs_, fitted.tokens.intercepts_, strict=True))
    logs = nodes.add("Unsqueeze", [nodes.layers(layers, scaled, "tokens"), nodes.weight("last", [2], np.int64)], "logs")
    unknown = np.where(np.isnan(fitted.caps), np.nan, 0.0)[None, :, None]
    caps = nodes.weight("caps", np.minimum(np.nan_to_num(fitted.caps, nan=UNCAPPED), UNCAPPED)[None, :, None])
    one, absent = nodes.weight("one", 1.0), nodes.weight("absent", unknown)
    for name, residuals in (("draws", fitted.residual_grid), ("token_quantiles", fitted.residual_quantiles)):
        shifted = nodes.add("Add", [logs, nodes.weight(f"{name}/residuals", residuals[None])], f"{name}/log")
        raw = nodes.add("Sub", [nodes.add("Exp", [shifted], f"{name}/exp"), one], f"{name}/raw")
        capped = nodes.add("Min", [nodes.add("Relu", [raw], f"{name}/positive"), caps], f"{name}/capped")
        nodes.add("Add", [capped, absent], name)
    nodes.add("ReduceMean", ["draws", "last"], "mean_tokens", keepdims=0)


def _write(
    fitted: Fitted,
    model: onnx.ModelProto,
    ladder: BudgetLadder,
    proofs: Proofs,
    sample: list[str],
    expected: Prediction,
    aside: Path,
    about: dict[str, Any],
) -> None:
    (aside / MODEL).write_bytes(model.SerializeToString())
    (aside / TOKENIZER).write_bytes(fitted.embedding.tokenizer)
    parity = {"prompts": sample, "quality": expected.quality[: len(sample)].tolist()}
    (aside / PARITY).write_text(json.dumps(parity, indent=1) + "\n")
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        created_at=datetime.now(UTC).replace(microsecond=0),
        ladder=ladder,
        backend_fingerprint=about["backend_fingerprint"],
        feature_version=features.VERSION,
        profile=fitted.embedding.profile,
        max_tokens=fitted.embedding.max_tokens,
        data_hash=about["data_hash"],
        certificates=proofs.relative,
        absolute=proofs.absolute,
        not_certified=proofs.refused,
        metrics=about["metrics"],
        files={name: digest(aside / name) for name in (MODEL, TOKENIZER, PARITY)},
    )
    write_manifest(aside, manifest)
    report.write(aside, about["report"])


def _move(aside: Path, directory: Path) -> None:
    """Put the finished bundle in place; what was there goes only once the new one is whole."""
    assert (aside / MANIFEST).exists()
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    aside.chmod(0o755)
    aside.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
