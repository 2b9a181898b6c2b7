"""Write the trained pocket reasoner: weights for transformers and vLLM, an ONNX graph with KV cache for serving.

See `python -m training.pocket.export --help`. The export fails if the graph and torch disagree.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training.pocket import tokenizer as vocabulary
from training.pocket.model import PocketConfig, PocketNetwork

CHAT_TEMPLATE = (
    "{%- for message in messages if message.role == 'user' -%}{%- if loop.last -%}"
    "<|im_start|>{{ message.content }}<|im_end|><think>"
    "{%- if enable_thinking is defined and not enable_thinking -%}</think>{%- endif -%}"
    "{%- endif -%}{%- endfor -%}"
)
"""Renders the last user message only, since the model knows no conversations; an empty thought turns thinking off."""

OUTPUT_TOLERANCE = 1e-3
"""Largest difference between logits of torch and of ONNX Runtime."""


class Step(nn.Module):
    """One forward step as a graph: ids [b, s], past [layers, 2, b, heads, t, size] -> logits [b, v], present."""

    def __init__(self, model: PocketNetwork) -> None:
        super().__init__()
        self.inner = model

    def forward(self, input_ids: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the next token, and the cache grown by the new tokens."""
        new, old = input_ids.shape[1], past.shape[4]
        columns = torch.arange(old + new)
        # New token i may look at all old tokens and at new tokens up to itself.
        mask = columns[None, :] <= (torch.arange(new) + old)[:, None]
        layers = [(past[i, 0], past[i, 1]) for i in range(self.inner.config.num_hidden_layers)]
        hidden, presents = self.inner.hidden(input_ids, mask, layers)
        present = torch.stack([torch.stack(pair) for pair in presents])
        return self.inner.logits(hidden[:, -1]), present


def empty_cache(config: PocketConfig, batch: int = 1) -> Tensor:
    """A key-value cache [layers, 2, batch, heads, 0, size] without tokens."""
    return torch.zeros(config.num_hidden_layers, 2, batch, config.num_attention_heads, 0, config.head_dim)


def export_onnx(model: PocketNetwork, path: Path) -> None:
    """Export one forward step to an ONNX file; batch size and lengths stay free."""
    # Tracing fixes every length that is 1, so the example has two sequences, three new tokens and five old ones.
    ids = torch.ones(2, 3, dtype=torch.long)
    past = torch.zeros(*empty_cache(model.config, 2).shape[:4], 5, model.config.head_dim)
    torch.onnx.export(
        Step(model),
        (ids, past),
        str(path),
        input_names=["input_ids", "past"],
        output_names=["logits", "present"],
        dynamic_axes={
            "input_ids": {0: "batch", 1: "new"},
            "past": {2: "batch", 4: "old"},
            "logits": {0: "batch"},
            "present": {2: "batch", 4: "total"},
        },
        dynamo=False,
    )


@torch.no_grad()
def check_graph(model: PocketNetwork, path: Path) -> float:
    """Largest difference of logits between torch, on a sequence at once, and the graph, by prefill and single steps."""
    session = onnxruntime.InferenceSession(path)
    ids = torch.randint(0, model.config.vocab_size, (3, 40), generator=torch.Generator().manual_seed(0))
    expected = model.logits(model.hidden(ids)[0]).numpy()
    # Prefill and steps, as in serving: a fault in the cache or in the positions shows only in the second of them.
    past, worst = empty_cache(model.config, 3).numpy(), 0.0
    for start, end in [(0, 30), *((i, i + 1) for i in range(30, 40))]:
        logits, past = session.run(None, {"input_ids": ids[:, start:end].numpy(), "past": past})
        worst = max(worst, float(np.abs(logits - expected[:, end - 1]).max()))
    return worst


def export(checkpoint: Path, weights: Path, serving: Path) -> None:
    """Write a checkpoint as weights for transformers and as a graph for serving.

    Args:
        weights: directory for transformers, vLLM and SGLang.
        serving: directory for the embedded backend.

    Raises:
        SystemExit: the graph and torch disagree.
    """
    tokenizer = vocabulary.build()
    model = PocketNetwork(PocketConfig(tokenizer.get_vocab_size()))
    model.load_state_dict(torch.load(checkpoint, map_location="cpu")["model"])
    model = model.half().float().eval()  # both exports hold the same half-precision numbers
    weights.mkdir(parents=True, exist_ok=True)
    serving.mkdir(parents=True, exist_ok=True)
    end, pad = (tokenizer.token_to_id(t) for t in (vocabulary.END, vocabulary.PAD))
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, weights / "model.safetensors")
    config = model.config.to_qwen3(end=end, pad=pad) | {"torch_dtype": "float16"}
    (weights / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": vocabulary.END, "pad_token": vocabulary.PAD}
    (weights / "tokenizer_config.json").write_text(
        json.dumps(special | {"unk_token": vocabulary.UNKNOWN, "chat_template": CHAT_TEMPLATE}, indent=2) + "\n"
    )
    generation = {"eos_token_id": end, "pad_token_id": pad, "do_sample": False}
    (weights / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for directory in (weights, serving):
        tokenizer.save(str(directory / "tokenizer.json"))
    for record in ("recipe.json", "log.jsonl"):
        shutil.copy(checkpoint.with_name(record), weights / record)
    export_onnx(model, serving / "model.onnx")
    worst = check_graph(model, serving / "model.onnx")
    if not worst < OUTPUT_TOLERANCE:
        raise SystemExit(f"the ONNX graph differs from torch by {worst:.1e} in a logit")
    print(f"wrote {weights} and {serving}; logits agree within {worst:.1e}")


def main() -> None:
    """Parse the options and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("var/pocket/checkpoint.pt"))
    parser.add_argument("--weights", type=Path, default=Path("training/pocket/weights"), help="for transformers, vLLM")
    parser.add_argument("--serving", type=Path, default=Path("router/models/pocket"), help="for the embedded backend")
    args = parser.parse_args()
    export(args.checkpoint, args.weights, args.serving)


if __name__ == "__main__":
    main()
