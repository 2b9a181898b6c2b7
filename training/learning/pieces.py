"""The evidence in arrays: what policies are fitted to, and what tests them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from router.domain import BudgetLadder, LabelSource, Prompt
from router.learning.evidence import Evidence
from training.arrays import Mask, Matrix, Rows
from training.data.outcomes import Outcomes
from training.model.embedding import Embedding
from training.model.fit import Inputs


@dataclass(frozen=True)
class Kind:
    """What evidence is about. Pieces of different kinds say nothing of each other.

    Attributes:
        features: version of the inputs.
        width: numbers of each prompt's inputs.
    """

    engine: str
    ladder: BudgetLadder
    features: str
    width: int

    @classmethod
    def of(cls, one: Evidence) -> "Kind":
        """The kind of a piece of evidence."""
        return cls(one.engine, one.ladder, one.features, len(one.inputs))

    @property
    def key(self) -> str:
        """A short name that no other kind has."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Pieces:
    """Pieces of evidence of one kind, in the order in which they were written.

    Attributes:
        numbers: grow, and are never used again [pieces].
        prompts: names of what was asked, which stand for it where inputs are looked up.
        inputs: hand features and the vector of the embedding [pieces, width].
        losses: the most that each rung may have lost, -1..most [pieces, rungs].
        settled_losses: the least that each rung will have lost once all have spoken, -1..most [pieces, rungs].
        thinking_tokens: [pieces, rungs].
        most: the largest loss; above 1 where a judge misses some.
        agreement: nobody has judged or reported anything, so losses are what differs from the top rung.
        tenants: keyed hashes of those who asked [pieces].
        tenant_share: the largest share of the tests that one of several tenants has, where they are balanced.
    """

    kind: Kind
    numbers: NDArray[np.int64]
    prompts: list[Prompt]
    groups: list[str]
    inputs: Inputs
    losses: Matrix
    settled_losses: Matrix
    thinking_tokens: Matrix
    most: float
    agreement: bool
    tenants: list[str]
    tenant_share: float

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def first(self) -> Mask:
        """Pieces that are the first of their group [pieces]: only these test, since a group counts once."""
        _, places = np.unique(np.asarray(self.groups), return_index=True)
        first = np.zeros(len(self), bool)
        first[places] = True
        return first

    def tests(self, after: int) -> Rows:
        """Places of the pieces that test what was fixed before them: the first of their group, beyond a number."""
        return np.flatnonzero(self.first & (self.numbers > after))

    def take(self, rows: Rows) -> "Pieces":
        """The pieces at `rows`, in that order."""
        return Pieces(
            self.kind,
            self.numbers[rows],
            [self.prompts[i] for i in rows],
            [self.groups[i] for i in rows],
            self.inputs[rows],
            self.losses[rows],
            self.settled_losses[rows],
            self.thinking_tokens[rows],
            self.most,
            self.agreement,
            [self.tenants[i] for i in rows],
            self.tenant_share,
        )

    @property
    def outcomes(self) -> Outcomes:
        """The same as outcomes, in which an answer is as right as it can at least be if the top rung's is."""
        correct = 1 - np.clip(self.losses, 0.0, 1.0)
        return Outcomes(
            self.kind.engine,
            self.kind.ladder,
            self.prompts,
            [""] * len(self),
            self.groups,
            correct,
            self.thinking_tokens,
            np.ones(correct.shape, np.int64),
            np.stack([correct, np.full(correct.shape, np.nan)]),
            (LabelSource.AGREEMENT.value,),
        )

    def extraction(self, _: Embedding, prompts: Sequence[Prompt]) -> Inputs:
        """Inputs [prompts, width], looked up by name: there is no text to extract them from."""
        return self.inputs[[self._places[prompt] for prompt in prompts]]

    @cached_property
    def _places(self) -> dict[Prompt, int]:
        return {prompt: i for i, prompt in enumerate(self.prompts)}
