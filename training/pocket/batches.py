"""What the pocket reasoner is trained on: items as token ids, in batches whose thoughts are cut anywhere."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.pocket import tokenizer as vocabulary
from training.pocket.tasks import FAMILIES, LEVELS, held_out, items

IGNORE = -100
"""Target without loss, PyTorch's default."""


@dataclass(frozen=True)
class Hyperparameters:
    """The settings of a training run.

    Attributes:
        tokens: training tokens, prompts and padding included.
        batch_tokens: most tokens of a batch, padding included.
        items_per_level: items of each family and level.
        full_share: share of samples with the full chain.
        direct_share: share of samples without a chain; the remaining ones have a chain that is cut at random.
        ramp: share of the run after which all levels are drawn from; easy levels come first.
        warmup, decay: shares of the run in which the learning rates rise, and fall to zero.
        muon_lr, adam_lr: learning rates.
    """

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
    """Items of every family, by level.

    Args:
        held: take items that are held out from training instead of the others.
        per_level: most items of each family and level.
    """
    tokenizer = vocabulary.build()
    ids = tokenizer.get_vocab()
    unknown = ids[vocabulary.UNKNOWN]
    start, end, think = (ids[t] for t in (vocabulary.START, vocabulary.END, vocabulary.THINK))
    levels: list[list[Encoded]] = []
    for level in range(LEVELS):
        levels.append([])
        for family in FAMILIES:
            # Enough for either side of `held_out`, and an end for families that have too few questions.
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
    """Draws training batches.

    In serving, a budget may cut a thought anywhere. So a part of the samples has a chain cut at random, or none, and
    then the right answer: the model learns to answer from any state of its thought.
    """

    def __init__(
        self, levels: list[list[Encoded]], params: Hyperparameters, end_think: int, pad: int, seen: int
    ) -> None:
        self.levels, self.params, self.end_think, self.pad = levels, params, end_think, pad
        self.rng = np.random.default_rng([params.seed, seen])  # a resumed run draws other samples than before

    def sample(self, progress: float) -> tuple[list[int], list[int]]:
        """Token ids and targets of one sample; `progress` is the share of the run that is done.

        The prompt carries no loss. Neither does the end of a thought that was cut, or the model would learn to stop
        thinking at random.
        """
        # Easy levels first: the chains of hard ones are made of the same steps, only more of them.
        top = min(LEVELS, 2 + int(progress / self.params.ramp * (LEVELS - 2)))
        pool = self.levels[self.rng.integers(top)]
        item = pool[self.rng.integers(len(pool))]
        kind = self.rng.random()
        forced = kind >= self.params.full_share
        if kind < self.params.full_share:
            chain = item.chain
        elif kind < self.params.full_share + self.params.direct_share:
            chain = []
        else:
            chain = item.chain[: self.rng.integers(1, max(2, len(item.chain)))]
        ids = [*item.prompt, *chain, self.end_think, *item.answer]
        end_of_thinking = IGNORE if forced else self.end_think
        return ids, [*[IGNORE] * len(item.prompt), *chain, end_of_thinking, *item.answer]

    def batches(self, progress: float, samples: int = 512) -> Iterator[Batch]:
        """About `samples` samples in padded batches of similar length, in random order."""
        drawn = sorted((self.sample(progress) for _ in range(samples)), key=lambda s: len(s[0]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for sample in drawn:
            if (len(groups[-1]) + 1) * len(sample[0]) > self.params.batch_tokens:
                groups.append([])
            groups[-1].append(sample)
        for index in self.rng.permutation(len(groups)):
            yield self._pad(groups[index])

    def _pad(self, group: list[tuple[list[int], list[int]]]) -> Batch:
        width = max(len(ids) for ids, _ in group)
        ids = np.full((len(group), width), self.pad, dtype=np.int64)
        targets = np.full((len(group), width), IGNORE, dtype=np.int64)
        for row, (tokens, target) in enumerate(group):
            ids[row, : len(tokens)], targets[row, : len(tokens)] = tokens, target
        return ids[:, :-1], targets[:, 1:]  # a token's target is the next token
