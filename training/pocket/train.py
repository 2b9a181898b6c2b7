"""Train the pocket reasoner from scratch; see `python -m training.pocket.train --help`.

The hyperparameters are written beside the weights. A run that was stopped continues from its last checkpoint.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from training.pocket import tokenizer as vocabulary
from training.pocket.batches import IGNORE, BatchSampler, Encoded, Hyperparameters, encode_items
from training.pocket.model import PocketConfig, PocketNetwork

CHECK_EVERY = 1_000_000
"""Tokens between two checkpoints."""

CHECKPOINT = "checkpoint.pt"


def loss_of(model: PocketNetwork, ids: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over targets that are not IGNORE; ids and targets are [batch, tokens]."""
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        hidden, _ = model.hidden(ids)
        wanted = targets != IGNORE
        # Only positions with a target go through the output layer, the largest matrix product of the model.
        logits = model.logits(hidden[wanted])
    return F.cross_entropy(logits.float(), targets[wanted])


def optimizers(model: PocketNetwork, params: Hyperparameters) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix before each step, so that every direction of the
    matrix learns at the same rate; on small transformers it needs fewer tokens than AdamW. It is defined for matrices
    that act on hidden states. Embeddings and vectors of norms are no such matrices and keep AdamW.
    """
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=params.muon_lr, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=params.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(progress: float, params: Hyperparameters) -> float:
    """Factor on the learning rates at a share of the run: a linear rise, a plateau, a linear fall to zero."""
    # The first batch comes at progress 0, and must not be lost to a rate of zero.
    return min(1.0, progress / params.warmup + 0.01, max(0.0, 1 - progress) / params.decay)


@torch.no_grad()
def chain_accuracy(model: PocketNetwork, items: list[Encoded], end_think: int, device: str) -> dict[str, float]:
    """Share of held-out items, by family, whose chain and answer are predicted right at every token.

    Each token is predicted from the right tokens before it, so one pass serves for an item.
    """
    right: dict[str, list[bool]] = {}
    for item in items:
        ids = torch.tensor([[*item.prompt, *item.chain, end_think, *item.answer]], device=device)
        guess = model.logits(model.hidden(ids)[0]).argmax(-1)[0]
        from_, ids = len(item.prompt), ids[0]
        right.setdefault(item.family, []).append(bool((guess[from_ - 1 : -1] == ids[from_:]).all()))
    return {name: float(np.mean(hits)) for name, hits in right.items()}


def train(params: Hyperparameters, out: Path, device: str) -> None:
    """Train and write checkpoints into `out`; a run that was stopped continues from its last one."""
    torch.manual_seed(params.seed)
    tokenizer = vocabulary.build()
    end_think, pad = (tokenizer.get_vocab()[t] for t in (vocabulary.END_THINK, vocabulary.PAD))
    model = PocketNetwork(PocketConfig(tokenizer.get_vocab_size())).to(device)
    steppers = optimizers(model, params)
    seen = resume(out / CHECKPOINT, model, steppers, device)
    if seen >= params.tokens:
        print(f"{out / CHECKPOINT} is fully trained; remove {out} to start again")
        return
    trained_on = encode_items(held=False, per_level=params.items_per_level, seed=params.seed)
    sampler = BatchSampler(trained_on, params, end_think, pad, seen)
    check = [i for level in encode_items(held=True, per_level=8, seed=params.seed + 1) for i in level]
    bar = tqdm(total=params.tokens, initial=seen, unit="tok", unit_scale=True, mininterval=10)
    next_check, losses, began = seen + CHECK_EVERY, [], time.time()
    while seen < params.tokens:
        for ids, targets in sampler.batches(seen / params.tokens):
            losses.append(step(model, steppers, ids, targets, schedule(seen / params.tokens, params), params))
            seen += ids.size
            bar.update(ids.size)
        if seen >= next_check or seen >= params.tokens:
            next_check = seen + CHECK_EVERY
            record: dict[str, Any] = {
                "tokens": seen,
                "loss": float(torch.stack(losses).mean()),
                "seconds": round(time.time() - began),
            }
            record["chain_accuracy"] = chain_accuracy(model, check, end_think, device)
            losses = []
            save(out, model, steppers, seen, record)


def step(
    model: PocketNetwork,
    steppers: list[torch.optim.Optimizer],
    ids: NDArray[np.int64],
    targets: NDArray[np.int64],
    share: float,
    params: Hyperparameters,
) -> Tensor:
    """Make one update at `share` of the full learning rates; returns the loss."""
    for stepper, rate in zip(steppers, (params.muon_lr, params.adam_lr), strict=True):
        stepper.param_groups[0]["lr"] = rate * share
    device = next(model.parameters()).device
    loss = loss_of(model, torch.from_numpy(ids).to(device), torch.from_numpy(targets).to(device))
    loss.backward()
    for stepper in steppers:
        stepper.step()
        stepper.zero_grad()
    # Not a number: to read it here would make the processor wait for the GPU after every batch.
    return loss.detach()


def resume(checkpoint: Path, model: PocketNetwork, steppers: list[torch.optim.Optimizer], device: str) -> int:
    """Load the checkpoint if it exists; returns the tokens seen so far."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, map_location=device)
    model.load_state_dict(state["model"])
    for stepper, saved in zip(steppers, state["optimizers"], strict=True):
        stepper.load_state_dict(saved)
    return int(state["seen"])


def save(
    out: Path, model: PocketNetwork, steppers: list[torch.optim.Optimizer], seen: int, record: dict[str, Any]
) -> None:
    """Append a record to the log, then replace the checkpoint in one step: a crash leaves the old or the new one."""
    with (out / "log.jsonl").open("a") as log:
        log.write(json.dumps(record) + "\n")
    state = {"model": model.state_dict(), "optimizers": [s.state_dict() for s in steppers], "seen": seen}
    # A kill during the write must not cost the last checkpoint, so the new one is written aside.
    aside = out / f"{CHECKPOINT}.tmp"
    torch.save(state, aside)
    aside.rename(out / CHECKPOINT)


def main() -> None:
    """Parse the options and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("var/pocket"), help="checkpoints and log (default %(default)s)"
    )
    parser.add_argument(
        "--tokens", type=int, default=Hyperparameters.tokens, help="training tokens (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    params = Hyperparameters(tokens=args.tokens)
    (args.out / "recipe.json").write_text(json.dumps(asdict(params), indent=2) + "\n")
    train(params, args.out, "cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()
