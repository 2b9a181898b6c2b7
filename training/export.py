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
from onnx import TensorProto, compose, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.pipeline import Pipeline

from router import features
from router.artifact import FORMAT_VERSION, MANIFEST, MODEL, PARITY, Manifest, digest, write_manifest
from router.domain import BudgetLadder, Certificate
from training.certify import choose
from training.fit import Fitted, inputs

OPSET = 18
TOLERANCE = 1e-5
PARITY_PROMPTS = 16
UNCAPPED = 1e9


class ExportError(RuntimeError):
    """The graph does not say what scikit-learn says."""


def export(
    fitted: Fitted,
    ladder: BudgetLadder,
    certificates: tuple[Certificate, ...],
    sample: list[str],
    directory: Path,
    **about: Any,
) -> None:
    """Write a bundle to `directory`, replacing what is there.

    Args:
        sample: prompts on which graph and scikit-learn must agree; the first ones become the parity sample.
        about: the manifest's backend_fingerprint, data_hash and metrics.

    Raises:
        ExportError: quality differs by more than TOLERANCE, or any decision differs.
    """
    model = build_graph(fitted, ladder)
    quality = fitted.predict_quality(sample)
    check(model, sample, quality, certificates)
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    (aside / MODEL).write_bytes(model.SerializeToString())
    parity = {"prompts": sample[:PARITY_PROMPTS], "quality": quality[:PARITY_PROMPTS].tolist()}
    (aside / PARITY).write_text(json.dumps(parity, indent=1) + "\n")
    files = {name: digest(aside / name) for name in (MODEL, PARITY)}
    now = datetime.now(UTC).replace(microsecond=0)
    manifest = Manifest(
        FORMAT_VERSION, now, ladder, about["backend_fingerprint"], features.VERSION, about["data_hash"],
        certificates, about["metrics"], files,
    )  # fmt: skip
    write_manifest(aside, manifest)
    _move(aside, directory)


def build_graph(fitted: Fitted, ladder: BudgetLadder) -> onnx.ModelProto:
    """features [n, width] -> quality [n, rungs], mean_tokens [n, rungs], token_quantiles [n, rungs, 3]."""
    quality = _converted(fitted.quality, "quality", {"zipmap": False})
    length = _converted(fitted.length, "length", None)
    merged = compose.merge_models(quality, length, io_map=[], outputs=["quality/probabilities", "length/variable"])
    graph = merged.graph
    _share_input(graph)
    caps = [UNCAPPED if rung.tokens is None else float(rung.tokens) for rung in ladder.rungs]
    _price(graph, np.array(caps, dtype=np.float32), fitted)
    rungs = len(ladder)
    outputs: dict[str, list[str | int | None]] = {
        "quality": ["n", rungs],
        "mean_tokens": ["n", rungs],
        "token_quantiles": ["n", rungs, len(fitted.residual_quantiles)],
    }
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()
    )
    onnx.checker.check_model(merged, full_check=True)
    return merged


def check(model: onnx.ModelProto, sample: list[str], quality: Any, certificates: tuple[Certificate, ...]) -> None:
    """Raise ExportError unless ONNX Runtime and scikit-learn agree on the sample."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (served,) = session.run(["quality"], {"features": inputs(sample)})
    worst = float(np.abs(served - quality).max())
    if not worst <= TOLERANCE:
        raise ExportError(f"ONNX differs from scikit-learn by {worst:.1e} in P(correct)")
    for certificate in certificates:
        differ = choose(served, certificate.threshold) != choose(quality, certificate.threshold)
        if differ.any():
            raise ExportError(f"{differ.sum()} decisions differ between ONNX and scikit-learn")


def _converted(pipeline: Pipeline, prefix: str, options: dict[str, Any] | None) -> onnx.ModelProto:
    example = np.zeros((1, features.WIDTH), dtype=np.float32)
    chosen = None if options is None else {id(pipeline): options}
    model = to_onnx(pipeline, example, options=chosen, target_opset={"": OPSET, "ai.onnx.ml": 3})
    return compose.add_prefix(model, f"{prefix}/")


def _share_input(graph: onnx.GraphProto) -> None:
    """Both models read the one input "features"."""
    names = [value.name for value in graph.input]
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in names:
                node.input[index] = "features"
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", features.WIDTH]))


def _price(graph: onnx.GraphProto, caps: np.ndarray, fitted: Fitted) -> None:
    """Nodes from the predicted log length to tokens per rung: min(cap, max(0, exp(prediction + residual) - 1))."""
    constants = {
        "caps": caps[None, :, None],
        "grid": fitted.residual_grid.astype(np.float32)[None, :],
        "levels": fitted.residual_quantiles.astype(np.float32)[None, :],
        "one": np.array([1.0], dtype=np.float32),
        "rung_axis": np.array([1], dtype=np.int64),
        "last_axis": np.array([2], dtype=np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    graph.node.append(helper.make_node("Identity", ["quality/probabilities"], ["quality"]))
    for source, name in (("grid", "draws"), ("levels", "token_quantiles")):
        graph.node.extend(
            [
                helper.make_node("Add", ["length/variable", source], [f"{name}_log"]),
                helper.make_node("Exp", [f"{name}_log"], [f"{name}_exp"]),
                helper.make_node("Sub", [f"{name}_exp", "one"], [f"{name}_raw"]),
                helper.make_node("Relu", [f"{name}_raw"], [f"{name}_tokens"]),
                helper.make_node("Unsqueeze", [f"{name}_tokens", "rung_axis"], [f"{name}_wide"]),
                helper.make_node("Min", [f"{name}_wide", "caps"], [name]),
            ]
        )
    graph.node.append(helper.make_node("ReduceMean", ["draws", "last_axis"], ["mean_tokens"], keepdims=0))


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
