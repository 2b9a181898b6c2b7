"""The encoder of all-MiniLM-L6-v2's shape in ONNX Runtime, and proof of where it runs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from router.onnx_session import CPU, open_session
from router.scoring.onnx import CUDA
from router.scoring.outputs import VECTOR
from training.model.embedding import GRAPHS, bert
from training.model.onnx_graph import TOKENS, Weights

CONFIG: dict[str, Any] = {
    "hidden_size": 384, "num_attention_heads": 12, "num_hidden_layers": 6, "intermediate_size": 1536,
    "layer_norm_eps": 1e-12,
}  # fmt: skip
WORDS, LONGEST = 32_000, 512
"""Tokens of the shipped bundle's tokenizer, and of the longest text."""

COMPUTE = ("MatMul", "Gemm", "Softmax", "Norm", "Gelu", "Attention")
"""Parts of the names of operators that a GPU is for. Shapes are small, and may be computed anywhere."""

Encode = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Token ids [n, length], padded with -1 -> vectors [n, d] of length sqrt(d)."""


def graph_of(weights: Weights, precision: str) -> bytes:
    """The encoder as `budget-train fit --profile encoder` writes it."""
    graph = GRAPHS[precision]()
    bert(graph, weights, CONFIG)
    return graph.model(CONFIG["hidden_size"]).SerializeToString()


def served(graph: bytes, device: str) -> Encode:
    """A session as serving opens it."""
    session = open_session(graph, (CPU,) if device == "cpu" else (CUDA, CPU))
    return lambda ids: session.run([VECTOR], {TOKENS: ids})[0]


def captured(graph: bytes, ids: NDArray[np.int64]) -> Encode:
    """A session that replays a CUDA graph, for ids of this shape alone; raises whatever ONNX Runtime raises."""
    session = onnxruntime.InferenceSession(graph, providers=[(CUDA, {"enable_cuda_graph": "1"}), CPU])
    given = onnxruntime.OrtValue.ortvalue_from_numpy(ids, "cuda", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input(TOKENS, given)
    shape = [len(ids), CONFIG["hidden_size"]]
    found = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)
    binding.bind_ortvalue_output(VECTOR, found)

    def run(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        given.update_inplace(ids)
        session.run_with_iobinding(binding)
        vectors: NDArray[np.float32] = found.numpy()
        return vectors

    run(ids)
    return run


def require_placed(graph: bytes, wanted: str) -> set[str]:
    """The kinds of operators that do not run on the wanted provider. Exits where one of COMPUTE is among them."""
    found = {name for name, provider in placed(graph, wanted) if provider != wanted}
    if lost := sorted(name for name in found if any(part in name for part in COMPUTE)):
        raise SystemExit(f"gpu: {', '.join(lost)} not on {wanted}: ONNX Runtime fell back, its messages say why")
    return found


def require_noticed(graph: bytes) -> None:
    """Raise AssertionError if a fallback to the CPU went unnoticed; for a machine without a GPU."""
    try:
        require_placed(graph, CUDA)
    except SystemExit as seen:
        print(f"A fallback is seen as an error: {seen}")
        return
    raise AssertionError("a fallback to the CPU went unnoticed")


def placed(graph: bytes, wanted: str) -> Iterator[tuple[str, str]]:
    """Name and provider of each operator of a run, by ONNX Runtime's own profile."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    with TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        providers = [one for one in dict.fromkeys((wanted, CPU)) if one in onnxruntime.get_available_providers()]
        session = onnxruntime.InferenceSession(graph, options, providers=providers)
        session.run([VECTOR], {TOKENS: ids_of(2, 8)})
        events = json.loads(Path(session.end_profiling()).read_text())
    for event in events:
        if provider := event.get("args", {}).get("provider"):
            yield event["args"]["op_name"], provider


def ids_of(prompts: int, tokens: int) -> NDArray[np.int64]:
    """Random token ids [prompts, tokens], the last of the last prompt padding."""
    ids = np.random.default_rng(prompts).integers(0, WORDS, (prompts, tokens))
    ids[-1, -1] = -1
    return ids
