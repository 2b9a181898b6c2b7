"""The words that the stages of collection share: what is asked, how, and what came of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from router.backends.connect import Connection
from router.domain import BudgetLadder, FinishReason, Sampling
from training.collect.questions import Question
from training.collect.scorers import SCORERS
from training.data.splits import prompt_id

OutcomeRow = dict[str, Any]
"""One outcome, JSON types only; `observed_at` is ISO 8601."""


@dataclass(frozen=True)
class Answer:
    """What one rung gave: the text, the tokens used (None where unknown), and how it ended."""

    text: str
    thinking_tokens: int | None
    answer_tokens: int | None
    finish: str


LOCKSTEP = 64
"""Prompts that the pocket reasoner runs together."""

FAILED = Answer("", None, None, "error")
"""The engine gave no answer. It is the engine's fault, so it never counts as wrong."""


@dataclass(frozen=True)
class Pocket:
    """The embedded model, read from a directory."""

    directory: Path


@dataclass(frozen=True)
class Recipe:
    """How answers are made. It can be pickled, so that workers elsewhere are built from it.

    Attributes:
        fingerprint: the model's name in outcomes.
        samples: answers per prompt and rung.
        sampling: its seed, if any, is the one that every sample's own is drawn from.
        concurrency: answers under way at once in one worker.
    """

    source: Pocket | Connection
    fingerprint: str
    ladder: BudgetLadder
    samples: int
    sampling: Sampling
    concurrency: int

    @property
    def batch(self) -> int:
        """Units that a worker is best given at once."""
        return LOCKSTEP if self.nested else 4 * self.concurrency

    @property
    def backend(self) -> str:
        """The backend's name in outcomes."""
        return "pocket" if isinstance(self.source, Pocket) else self.source.kind

    @property
    def nested(self) -> bool:
        """True where one trace gives the answers of every rung."""
        greedy = self.sampling.temperature == 0 and self.samples == 1
        return isinstance(self.source, Pocket) and greedy and all(r.tokens is not None for r in self.ladder.rungs)


@dataclass(frozen=True)
class Unit:
    """The least that is done or not done: an answer at one rung, or (rung None) a trace cut at every rung."""

    question: Question
    rung: int | None
    sample: int

    @property
    def key(self) -> str:
        """The unit's name within a run, the same in every attempt."""
        rung = "all" if self.rung is None else self.rung
        return f"{prompt_id(self.question.prompt)}/{rung}/{self.sample}"


@dataclass(frozen=True)
class UnitResult:
    """A unit's outcomes."""

    key: str
    rows: list[OutcomeRow]


class Collector(Protocol):
    """Makes answers; built once from a recipe, asked often."""

    def run(self, units: Iterable[Unit]) -> Iterator[list[UnitResult]]:
        """Units as they are finished, in any order. Raises BackendUnavailable."""
        ...

    def close(self) -> None:
        """Give back what the worker holds."""
        ...


def finish(unit: Unit, answers: Sequence[Answer], recipe: Recipe) -> UnitResult:
    """Score a unit's answers: one at its rung, or one of every rung."""
    first = unit.rung or 0
    return UnitResult(unit.key, [_row(unit, answer, order, recipe) for order, answer in enumerate(answers, first)])


def label(question: Question, answer: Answer) -> tuple[float, str]:
    """How right an answer is (0..1) and how it ended; failed, truncated and unparsable ones are told apart."""
    if answer.finish in (FAILED.finish, FinishReason.TRUNCATED.value):
        return 0.0, answer.finish
    verdict = SCORERS[question.scorer](answer.text, question.reference, question.metadata)
    return verdict.correct, answer.finish if verdict.parsed else "unparsable"


def _row(unit: Unit, answer: Answer, order: int, recipe: Recipe) -> OutcomeRow:
    question, rung = unit.question, recipe.ladder.rungs[order]
    identity = prompt_id(question.prompt)
    correct, ended = label(question, answer)
    return {
        "prompt": question.prompt,
        "prompt_id": identity,
        "group": question.group,
        "task": question.task,
        "backend": recipe.backend,
        "model": recipe.fingerprint,
        "rung": rung.name,
        "rung_order": order,
        "budget_tokens": rung.tokens,
        "trace_id": identity if unit.rung is None else None,
        "sample_id": unit.sample,
        "correct": correct,
        "label_source": "verifier",
        "thinking_tokens": answer.thinking_tokens,
        "total_tokens": _total(answer),
        "finish": ended,
        "observed_at": datetime.now(UTC).isoformat(timespec="microseconds"),
    }


def _total(answer: Answer) -> int | None:
    if answer.thinking_tokens is None or answer.answer_tokens is None:
        return None
    return answer.thinking_tokens + answer.answer_tokens
