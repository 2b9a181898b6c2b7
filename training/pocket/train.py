"""Train the pocket reasoner from nothing: `python -m training.pocket.train --help`.

The recipe is logged next to the weights. A run that is stopped goes on from its last checkpoint.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from training.pocket import tokenizer as vocabulary
from training.pocket.model import PocketConfig, PocketNetwork
from training.pocket.tasks import FAMILIES, LEVELS, held_out, items

IGNORE = -100
CHECK_EVERY = 1_000_000
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Hyperparameters:
    """Everything that determines a training run."""

    tokens: int = 32_000_000
    batch_tokens: int = 5_000
    items_per_level: int = 8_000
    full_share: float = 0.50
    direct_share: float = 0.15
    ramp: float = 0.25
    warmup: float = 0.01
    decay: float = 0.6
    muon_lr: float = 0.02
    adam_lr: float = 0.003
    seed: int = 1


@dataclass(frozen=True)
class Encoded:
    """One item as token ids: the prompt with its opening marker, the chain, the answer."""

    family: str
    level: int
    prompt: list[int]
    chain: list[int]
    answer: list[int]


Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


def encode_items(*, held: bool, per_level: int, seed: int) -> list[list[Encoded]]:
    """Items of every family by level; `held` chooses the side of the hash split."""
    tokenizer = vocabulary.build()
    ids = tokenizer.get_vocab()
    unknown = ids[vocabulary.UNKNOWN]
    start, end, think = (ids[t] for t in (vocabulary.START, vocabulary.END, vocabulary.THINK))
    levels: list[list[Encoded]] = []
    for level in range(LEVELS):
        levels.append([])
        for family in FAMILIES:
            drawn = itertools.islice(items(family, level, seed), 4 * per_level)
            kept = list(itertools.islice((i for i in drawn if held_out(i.question) == held), per_level))
            parts = [
                [e.ids for e in tokenizer.encode_batch_fast([getattr(i, part) for i in kept])]
                for part in ("question", "chain", "answer")
            ]
            for question, chain, answer in zip(*parts, strict=True):
                if unknown not in question:
                    prompt = [start, *question, end, think]
                    levels[-1].append(Encoded(family.name, level, prompt, chain, [*answer, end]))
    return levels


class BatchSampler:
    """Draws training batches; the three kinds of sample make a forced answer look familiar."""

    def __init__(
        self, levels: list[list[Encoded]], recipe: Hyperparameters, end_think: int, pad: int, seen: int
    ) -> None:
        self.levels, self.recipe, self.end_think, self.pad = levels, recipe, end_think, pad
        self.rng = np.random.default_rng([recipe.seed, seen])  # a resumed run draws anew

    def sample(self, progress: float) -> tuple[list[int], list[int]]:
        """(ids, targets): the prompt and a *forced* end of thinking carry no loss."""
        top = min(LEVELS, 2 + int(progress / self.recipe.ramp * (LEVELS - 2)))
        pool = self.levels[self.rng.integers(top)]
        item = pool[self.rng.integers(len(pool))]
        kind = self.rng.random()
        forced = kind >= self.recipe.full_share
        if kind < self.recipe.full_share:
            chain = item.chain
        elif kind < self.recipe.full_share + self.recipe.direct_share:
            chain = []
        else:
            chain = item.chain[: self.rng.integers(1, max(2, len(item.chain)))]
        ids = [*item.prompt, *chain, self.end_think, *item.answer]
        end_of_thinking = IGNORE if forced else self.end_think
        return ids, [*[IGNORE] * len(item.prompt), *chain, end_of_thinking, *item.answer]

    def batches(self, progress: float, samples: int = 512) -> Iterator[Batch]:
        """About `samples` samples, sorted by length into padded batches, in random order."""
        drawn = sorted((self.sample(progress) for _ in range(samples)), key=lambda s: len(s[0]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for one in drawn:
            if (len(groups[-1]) + 1) * len(one[0]) > self.recipe.batch_tokens:
                groups.append([])
            groups[-1].append(one)
        for index in self.rng.permutation(len(groups)):
            yield self._pad(groups[index])

    def _pad(self, group: list[tuple[list[int], list[int]]]) -> Batch:
        width = max(len(ids) for ids, _ in group)
        ids = np.full((len(group), width), self.pad, dtype=np.int64)
        targets = np.full((len(group), width), IGNORE, dtype=np.int64)
        for row, (one, target) in enumerate(group):
            ids[row, : len(one)], targets[row, : len(one)] = one, target
        return ids[:, :-1], targets[:, 1:]


def loss_of(model: PocketNetwork, ids: Tensor, targets: Tensor) -> Tensor:
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        hidden, _ = model.hidden(ids)
        wanted = targets != IGNORE
        logits = model.logits(hidden[wanted])
    return F.cross_entropy(logits.float(), targets[wanted])


def optimizers(model: PocketNetwork, recipe: Hyperparameters) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=recipe.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(progress: float, recipe: Hyperparameters) -> float:
    """Warm up, hold, decay linearly to zero."""
    return min(1.0, progress / recipe.warmup + 0.01, max(0.0, 1 - progress) / recipe.decay)


@torch.no_grad()
def chain_accuracy(model: PocketNetwork, items: list[Encoded], end_think: int, device: str) -> dict[str, float]:
    """Share of held-out items per family whose chain and answer are right at every step, teacher-forced."""
    right: dict[str, list[bool]] = {}
    for item in items:
        ids = torch.tensor([[*item.prompt, *item.chain, end_think, *item.answer]], device=device)
        guess = model.logits(model.hidden(ids)[0]).argmax(-1)[0]
        from_, ids = len(item.prompt), ids[0]
        right.setdefault(item.family, []).append(bool((guess[from_ - 1 : -1] == ids[from_:]).all()))
    return {name: float(np.mean(hits)) for name, hits in right.items()}


def train(recipe: Hyperparameters, out: Path, device: str) -> None:
    """Run the recipe, checkpointing into `out`; goes on where an earlier run was stopped."""
    torch.manual_seed(recipe.seed)
    tokenizer = vocabulary.build()
    end_think, pad = (tokenizer.get_vocab()[t] for t in (vocabulary.END_THINK, vocabulary.PAD))
    model = PocketNetwork(PocketConfig(tokenizer.get_vocab_size())).to(device)
    steppers = optimizers(model, recipe)
    seen = resume(out / CHECKPOINT, model, steppers, device)
    if seen >= recipe.tokens:
        print(f"{out / CHECKPOINT} is trained already; remove {out} to start anew")
        return
    trained_on = encode_items(held=False, per_level=recipe.items_per_level, seed=recipe.seed)
    sampler = BatchSampler(trained_on, recipe, end_think, pad, seen)
    check = [i for level in encode_items(held=True, per_level=8, seed=recipe.seed + 1) for i in level]
    bar = tqdm(total=recipe.tokens, initial=seen, unit="tok", unit_scale=True, mininterval=10)
    next_check, losses, began = seen + CHECK_EVERY, [], time.time()
    while seen < recipe.tokens:
        for ids, targets in sampler.batches(seen / recipe.tokens):
            losses.append(step(model, steppers, ids, targets, schedule(seen / recipe.tokens, recipe), recipe))
            seen += ids.size
            bar.update(ids.size)
        if seen >= next_check or seen >= recipe.tokens:
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
    recipe: Hyperparameters,
) -> Tensor:
    """One update at `share` of the full learning rates; returns the loss."""
    for stepper, rate in zip(steppers, (recipe.muon_lr, recipe.adam_lr), strict=True):
        stepper.param_groups[0]["lr"] = rate * share
    device = next(model.parameters()).device
    loss = loss_of(model, torch.from_numpy(ids).to(device), torch.from_numpy(targets).to(device))
    loss.backward()
    for stepper in steppers:
        stepper.step()
        stepper.zero_grad()
    return loss.detach()


def resume(checkpoint: Path, model: PocketNetwork, steppers: list[torch.optim.Optimizer], device: str) -> int:
    """Load a checkpoint where there is one; returns the tokens seen so far."""
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
    """Append to the log and replace the checkpoint in one step."""
    with (out / "log.jsonl").open("a") as log:
        log.write(json.dumps(record) + "\n")
    state = {"model": model.state_dict(), "optimizers": [s.state_dict() for s in steppers], "seen": seen}
    aside = out / f"{CHECKPOINT}.tmp"
    torch.save(state, aside)
    aside.rename(out / CHECKPOINT)


def main() -> None:
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
    recipe = Hyperparameters(tokens=args.tokens)
    (args.out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    train(recipe, args.out, "cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()
