"""The pocket reasoner's weights as GGUF, for llama.cpp: every word of its vocabulary is a token that is matched as a
whole, which is what its own tokenizer does."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Names of tensors, and of the parts of a layer, in the weights and in GGUF."""

CONTROL, USER_DEFINED = 3, 4
"""Kinds of tokens in GGUF."""


def write(weights: Path, library: Path, out: Path) -> None:
    """Write GGUF.

    Args:
        weights: directory with config.json, model.safetensors and the tokenizer.
        library: directory of the package `gguf`, which llama.cpp's sources have.
    """
    sys.path.insert(0, str(library))
    writer = import_module("gguf").GGUFWriter(out, "qwen3")
    config, tokenizer, texts = (
        json.loads((weights / f"{name}.json").read_text()) for name in ("config", "tokenizer", "tokenizer_config")
    )
    _add_shape(writer, config)
    _add_vocabulary(writer, tokenizer, texts["chat_template"], config["eos_token_id"])
    for name, tensor in tensors(weights / "model.safetensors").items():
        writer.add_tensor(_named(name), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of a safetensors file of half precision, in single precision."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    found = {}
    for name, about in header.items():
        first, last = about["data_offsets"]
        values = np.frombuffer(data[start + first : start + last], np.float16)
        found[name] = values.reshape(about["shape"]).astype(np.float32)
    return found


def _add_shape(writer: Any, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])


def _add_vocabulary(writer: Any, tokenizer: dict[str, Any], template: str, end: int) -> None:
    words = [word for word, _ in sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([CONTROL if word in special else USER_DEFINED for word in words])
    writer.add_eos_token_id(end)
    writer.add_unk_token_id(words.index("<|unknown|>"))
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(template)


def _named(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    _, _, layer, *part, kind = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(part)]}.{kind}"
