"""A BERT checkpoint of random weights that reads letters."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from training.model.onnx_graph import Weights

WORDS = ["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"]
CONFIG: dict[str, Any] = {
    "hidden_size": 12, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 20,
    "layer_norm_eps": 1e-12,
}  # fmt: skip


def random_bert(config: Mapping[str, Any], words: int, positions: int, scale: float = 0.5) -> Weights:
    """Random weights of a BERT's shape, named as in transformers."""
    random, size = np.random.default_rng(0), config["hidden_size"]

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.normal(scale=scale, size=shape).astype(np.float32)

    def linear(name: str, out: int, into: int) -> Weights:
        return {f"{name}.weight": normal(out, into), f"{name}.bias": normal(out)}

    def norm(name: str) -> Weights:
        return {f"{name}.weight": 1 + normal(size), f"{name}.bias": normal(size)}

    weights = {
        "embeddings.word_embeddings.weight": normal(words, size),
        "embeddings.position_embeddings.weight": normal(positions, size),
        "embeddings.token_type_embeddings.weight": normal(2, size),
        **norm("embeddings.LayerNorm"),
    }
    for i in range(config["num_hidden_layers"]):
        at, wide = f"encoder.layer.{i}", config["intermediate_size"]
        for name in ("query", "key", "value"):
            weights |= linear(f"{at}.attention.self.{name}", size, size)
        weights |= linear(f"{at}.attention.output.dense", size, size) | norm(f"{at}.attention.output.LayerNorm")
        weights |= linear(f"{at}.intermediate.dense", wide, size) | linear(f"{at}.output.dense", size, wide)
        weights |= norm(f"{at}.output.LayerNorm")
    return weights


def tiny_bert(folder: Path) -> Weights:
    """A checkpoint as transformers would save it; returns its weights."""
    weights = random_bert(CONFIG, len(WORDS), 32)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return weights
