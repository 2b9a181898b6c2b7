"""A BERT encoder in eager PyTorch: the same computation as the graph of `training.model.embedding.bert`."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from training.model.onnx_graph import Weights


class Eager:
    """Token ids [n, length], padded with -1 -> vectors [n, d] of length sqrt(d).

    Args:
        device: "cuda", in half precision as the graph has it there, or "cpu", in single.
    """

    def __init__(self, weights: Weights, config: dict[str, Any], device: str) -> None:
        torch.set_num_threads(1)  # as ONNX Runtime has here; a GPU needs no more to be fed
        number = torch.float16 if device == "cuda" else torch.float32
        self._weights = {name: torch.tensor(array, dtype=number, device=device) for name, array in weights.items()}
        self._config, self._device = config, device

    @torch.inference_mode()  # type: ignore[untyped-decorator,unused-ignore]
    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        tokens = torch.from_numpy(ids.copy()).to(self._device)
        seen = tokens >= 0
        words, positions, kinds = (
            self._weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        x = functional.embedding(tokens.clamp(min=0), words) + positions[: tokens.shape[1]] + kinds[0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(self._config["num_hidden_layers"]):
            x = self._layer(x, seen, f"encoder.layer.{layer}")
        total = (x.float() * seen[:, :, None]).sum(1)
        vectors: NDArray[np.float32] = (functional.normalize(total) * total.shape[1] ** 0.5).cpu().numpy()
        return vectors

    def _layer(self, x: torch.Tensor, seen: torch.Tensor, at: str) -> torch.Tensor:
        n, length, size = x.shape
        shape = (n, length, self._config["num_attention_heads"], -1)
        query, key, value = (
            self._dense(x, f"{at}.attention.self.{name}").view(shape).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None])
        attended = self._dense(mixed.transpose(1, 2).reshape(n, length, size), f"{at}.attention.output.dense")
        x = self._norm(x + attended, f"{at}.attention.output.LayerNorm")
        inner = functional.gelu(self._dense(x, f"{at}.intermediate.dense"))
        return self._norm(x + self._dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")

    def _dense(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        scale, bias = (self._weights[f"{name}.{part}"] for part in ("weight", "bias"))
        return functional.layer_norm(x, (x.shape[-1],), scale, bias, self._config["layer_norm_eps"])
