"""What a policy spends and saves on a test split, in tokens, time and money, with bootstrap intervals.

Answers count where their tokens are recorded: what is cut from a thought may lengthen its answer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from tokenizers import Tokenizer

from router.domain import Prompt
from training.arrays import Matrix, Vector
from training.data.outcomes import Outcomes
from training.evaluation import metrics

Tokens = TypeVar("Tokens", float, Vector)
Interval = tuple[float, float]
Estimate = tuple[float, Interval]
"""A value with its 95 % interval."""


@dataclass(frozen=True)
class Unit:
    """A measure of what a prompt takes: it grows by the same amount with every token.

    Attributes:
        kind: "tokens", "all tokens", "seconds" or "money".
        per: the number of prompts that figures are given for.
        fixed: what one prompt takes without tokens.
        per_token: what a token adds.
        answers: the tokens of the answer count, too; otherwise those of the thought alone, until the answer begins.
    """

    kind: str
    per: int = 1
    fixed: float = 0.0
    per_token: float = 1.0
    answers: bool = False

    def of(self, tokens: Tokens) -> Tokens:
        """What `per` prompts take that use `tokens` each."""
        return self.per * (self.fixed + self.per_token * tokens)


TOKENS, ALL_TOKENS = Unit("tokens"), Unit("all tokens", answers=True)


@dataclass(frozen=True)
class Rates:
    """How long tokens take and what they cost; None where that is unknown.

    Attributes:
        first_token: seconds to an engine's first token.
        per_token: seconds per token.
        price_in, price_out: per million tokens, in any currency.
    """

    first_token: float | None = None
    per_token: float | None = None
    price_in: float | None = None
    price_out: float | None = None

    def units(self, tokenizer: bytes, outcomes: Outcomes) -> list[Unit]:
        """Tokens, and the units for which the rates are known.

        Args:
            tokenizer: `tokenizers` JSON, which stands for the engine's own where prompts have a price.
            outcomes: whose prompts' mean length is paid for.
        """
        answers = outcomes.known_totals
        units = [TOKENS, ALL_TOKENS] if answers else [TOKENS]
        if self.per_token is not None:
            units.append(Unit("seconds", 1, self.first_token or 0.0, self.per_token))
        if self.price_out is not None:
            fixed = self.price_in / 1e6 * _length(tokenizer, outcomes.prompts) if self.price_in else 0.0
            units.append(Unit("money", 1_000, fixed, self.price_out / 1e6, answers))
        return units


UNKNOWN_RATES = Rates()


def _length(tokenizer: bytes, prompts: Sequence[Prompt]) -> float:
    """Mean tokens of conversations."""
    texts = [message.content for prompt in prompts for message in prompt.messages]
    return sum(len(one.ids) for one in Tokenizer.from_buffer(tokenizer).encode_batch(texts)) / len(prompts)


@dataclass(frozen=True)
class Saving:
    """What a policy saves in one unit.

    Attributes:
        unit: in which the figures are given.
        top, mix, spent: mean of always-top, of the cheapest mix of fixed rungs of the policy's accuracy, of the policy.
        saved_against_top, saved_against_hull: share of `top` and of `mix` that was saved, each with its 95 % interval.
    """

    unit: Unit
    top: float
    mix: float
    spent: float
    saved_against_top: float
    top_interval: Interval
    saved_against_hull: float
    hull_interval: Interval


class Spending:
    """A policy beside all fixed rungs, with their bootstrap samples."""

    def __init__(self, outcomes: Outcomes, correct: Vector, spent: Vector, total: Vector | None = None) -> None:
        """Args: correct, spent, total: correctness, thinking tokens and all tokens of the policy [prompts]."""
        # Every figure is a function of column means, so one bootstrap of the columns serves all intervals.
        unknown = np.full(len(outcomes), np.nan)
        policy = [correct, spent, unknown if total is None else total]
        totals = outcomes.thinking_tokens * np.nan if outcomes.total_tokens is None else outcomes.total_tokens
        values = np.column_stack([*policy, outcomes.correct, outcomes.thinking_tokens, totals])
        self._samples, self._means = metrics.bootstrap_means(outcomes.groups, values), values.mean(axis=0)[None]
        self._rungs = len(outcomes.ladder)

    def loss(self) -> Estimate:
        """Accuracy of always-top minus the policy's."""
        return self._estimate(lambda means: self._of_rungs(means, 0)[:, -1] - means[:, 0])

    def above_hull(self) -> Estimate:
        """Accuracy of the policy minus that of the best mix of fixed rungs with as many thinking tokens."""
        return self._estimate(lambda means: means[:, 0] - self._reached(means))

    def saved_against_top(self, unit: Unit = TOKENS) -> Estimate:
        """Share of what always-top takes that is saved."""
        return self._estimate(lambda means: self._saved(unit, means, self._top(means, unit)))

    def saved_against_hull(self, unit: Unit = TOKENS) -> Estimate:
        """The same against the cheapest mix of fixed rungs of the policy's accuracy."""
        return self._estimate(lambda means: self._saved(unit, means, self._mix(means, unit)))

    def savings(self, units: Sequence[Unit]) -> Iterator[Saving]:
        """The saving in every unit."""
        for unit in units:
            every = self._top(self._means, unit), self._mix(self._means, unit), self._means[:, _column(unit)]
            top, mix, spent = (unit.of(float(one)) for (one,) in every)
            figures = *self.saved_against_top(unit), *self.saved_against_hull(unit)
            yield Saving(unit, top, mix, spent, *figures)

    def _saved(self, unit: Unit, means: Matrix, instead_of: Vector) -> Vector:
        return share_saved(unit.of(means[:, _column(unit)]), unit.of(instead_of))

    def _of_rungs(self, means: Matrix, column: int) -> Matrix:
        """The rungs' means of a column of the policy [draws, rungs]."""
        return means[:, 3 + column * self._rungs :][:, : self._rungs]

    def _top(self, means: Matrix, unit: Unit) -> Vector:
        return self._of_rungs(means, _column(unit))[:, -1]

    def _mix(self, means: Matrix, unit: Unit) -> Vector:
        tokens, accuracy = metrics.hulls(self._of_rungs(means, _column(unit)), self._of_rungs(means, 0))
        return metrics.along(means[:, 0], accuracy, tokens)

    def _reached(self, means: Matrix) -> Vector:
        corners = metrics.hulls(self._of_rungs(means, 1), self._of_rungs(means, 0))
        return metrics.along(means[:, 1], *corners)

    def _estimate(self, statistic: Callable[[Matrix], Vector]) -> Estimate:
        (value,) = statistic(self._means)
        return float(value), metrics.bootstrap_interval(statistic(self._samples))


def _column(unit: Unit) -> int:
    """Where the policy's tokens of a unit stand among its columns: correctness, thinking tokens, all tokens."""
    return 2 if unit.answers else 1


def share_saved(spent: Vector, instead_of: Vector) -> Vector:
    """1 - spent / instead_of [draws], 0 where there was nothing to save."""
    paid = instead_of > 0
    return np.asarray(1 - np.divide(spent, instead_of, out=np.ones(len(paid)), where=paid))
