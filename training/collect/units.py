"""The data types of collection: answers, recipes, units of work, and what comes of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from router.backends.connect import Connection
from router.domain import BudgetLadder, Sampling
from router.stopping.evidence import Probe
from training.collect.judge import Judge
from training.collect.questions import Question

OutcomeRow = dict[str, Any]
"""One outcome in JSON types; `observed_at` is ISO 8601."""


RETRY_PAUSES = (1.0, 5.0)
"""Seconds before each further attempt at an answer."""


@dataclass(frozen=True)
class Answer:
    """The answer of one rung: its text, the tokens used in all attempts (None if unknown), and how it ended.

    Attributes:
        thinking_ended: "natural" or "cut", that of the last attempt; None if unknown.
        probe: the first tokens of the greedy answer behind the same cut.
        cause: why there is no answer.
    """

    text: str
    thinking_tokens: int | None
    answer_tokens: int | None
    finish: str
    attempts: int = 1
    thinking_ended: str | None = field(default=None, compare=False)
    probe: Probe | None = field(default=None, compare=False)
    cause: str = field(default="", compare=False)


LOCKSTEP = 64
"""Prompts that the pocket reasoner runs as one batch."""

FAILED = Answer("", None, None, "error")
"""The engine gave no answer. That is a failure of the engine, so it never counts as a wrong answer."""


def failed(cause: object) -> Answer:
    """FAILED with its cause."""
    return replace(FAILED, cause=str(cause))


@dataclass(frozen=True)
class Pocket:
    """The embedded model in a directory."""

    directory: Path


@dataclass(frozen=True)
class Recipe:
    """How answers are made. A recipe can be pickled, so that workers on other machines build their collector from it.

    Attributes:
        fingerprint: the model's name in outcomes.
        samples: answers per prompt and rung.
        sampling: every sample derives its own seed from the seed in it.
        concurrency: answers or traces in progress at once in one collector.
        judge: grades the answers to questions whose scorer is JUDGE.
        retry_pauses: seconds before each further attempt at an answer.
        nested: one thought is cut at every rung, and answered behind each cut.
    """

    source: Pocket | Connection
    fingerprint: str
    ladder: BudgetLadder
    samples: int
    sampling: Sampling
    concurrency: int
    judge: Judge | None = None
    retry_pauses: tuple[float, ...] = RETRY_PAUSES
    nested: bool = False

    @property
    def batch(self) -> int:
        """Units that keep one collector busy."""
        return LOCKSTEP if self.nested and isinstance(self.source, Pocket) else 4 * self.concurrency

    @property
    def backend(self) -> str:
        """The backend's name in outcomes."""
        return "pocket" if isinstance(self.source, Pocket) else self.source.kind


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work: an answer at one rung, or (rung None) at every rung, from one trace or labelled
    together."""

    question: Question
    rung: int | None
    sample: int

    @property
    def key(self) -> str:
        """The unit's name within a run, equal in every attempt."""
        rung = "all" if self.rung is None else self.rung
        return f"{self.question.identity}/{rung}/{self.sample}"


@dataclass(frozen=True)
class UnitResult:
    """The outcomes of a finished unit.

    Attributes:
        drawn: tokens that the engine drew for it.
        cause: why its first missing answer is missing.
    """

    key: str
    rows: list[OutcomeRow]
    drawn: int
    cause: str = ""


class Collector(Protocol):
    """Runs units; built once from a recipe."""

    def run(self, units: Iterable[Unit]) -> Iterator[list[UnitResult]]:
        """Yield results as units are finished, in any order. Raises BackendUnavailable."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...
