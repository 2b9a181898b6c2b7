"""A Qwen3-shaped decoder in plain torch; parameter names are those of `transformers`' Qwen3ForCausalLM."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class PocketConfig:
    """Shape of the network, by the names of the Qwen3 configuration."""

    vocab_size: int
    hidden_size: int = 192
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    head_dim: int = 32
    intermediate_size: int = 512
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 1024

    def to_qwen3(self, *, end: int, pad: int) -> dict[str, Any]:
        """The `config.json` that transformers, vLLM and SGLang read."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **asdict(self),
            "num_key_value_heads": self.num_attention_heads,
            "attention_bias": False,
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            "bos_token_id": None,
            "eos_token_id": end,
            "pad_token_id": pad,
        }


KeyValue = tuple[Tensor, Tensor]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021), half-split layout as in Qwen3."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


class RMSNorm(nn.Module):
    """Root-mean-square norm in basic operations, because torch's own does not export to ONNX."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))


class Attention(nn.Module):
    """Causal self-attention with normalised queries and keys, as in Qwen3."""

    def __init__(self, config: PocketConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.num_attention_heads, config.head_dim
        width = self.heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.head_dim)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: KeyValue | None
    ) -> tuple[Tensor, KeyValue]:
        """Hidden states [batch, new, hidden] -> the same shape, and the keys and values grown by the new tokens."""
        q = rotate(self.q_norm(self._split(self.q_proj(x))).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(self._split(self.k_proj(x))).transpose(1, 2), cos, sin)
        v = self._split(self.v_proj(x)).transpose(1, 2)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(y.transpose(1, 2).flatten(2)), (k, v)


class MLP(nn.Module):
    """Feed-forward block with a gate (SwiGLU, Shazeer 2020)."""

    def __init__(self, config: PocketConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """A decoder layer: attention and feed-forward block, each behind a norm and beside a residual."""

    def __init__(self, config: PocketConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: KeyValue | None
    ) -> tuple[Tensor, KeyValue]:
        """As `Attention.forward`."""
        y, present = self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x)), present


class Decoder(nn.Module):
    """Embedding, layers and final norm; a class of its own for the parameter names of Qwen3ForCausalLM."""

    def __init__(self, config: PocketConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class PocketNetwork(nn.Module):
    """The network with its output layer, whose matrix is the embedding."""

    def __init__(self, config: PocketConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        # The initialisation of GPT-2; vectors of norms keep their ones.
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def hidden(
        self, ids: Tensor, mask: Tensor | None = None, past: list[KeyValue] | None = None
    ) -> tuple[Tensor, list[KeyValue]]:
        """Token ids [batch, new] -> last hidden states [batch, new, hidden] and the grown key-value cache.

        Args:
            mask: additive or boolean [.., new, past + new]; None is plain causal and needs `past` to be None.
        """
        start = 0 if past is None else past[0][0].shape[2]
        # In float32 also under autocast: bfloat16 has 8 bits for a position, and rounds those above 256.
        positions = torch.arange(ids.shape[1], device=ids.device, dtype=torch.float32) + start
        # One angle per pair of columns; pair i turns by position * theta^(-2i / size).
        half = torch.arange(0, self.config.head_dim, 2, device=ids.device, dtype=torch.float32)
        angles = positions[:, None] * self.config.rope_theta ** (-half / self.config.head_dim)
        angles = torch.cat((angles, angles), dim=-1)
        x = self.model.embed_tokens(ids)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        presents = []
        for index, layer in enumerate(self.model.layers):
            x, present = layer(x, cos, sin, mask, None if past is None else past[index])
            presents.append(present)
        return self.model.norm(x), presents

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., hidden] -> logits [..., vocabulary]."""
        return F.linear(hidden, self.model.embed_tokens.weight)
