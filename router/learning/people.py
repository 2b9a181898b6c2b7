"""What people are asked about the evidence: answers that differ from the one that was served, where texts are kept."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from router import chat_form
from router.domain import Prompt
from router.errors import OutcomeFileError
from router.learning import store
from router.learning.evidence import PEOPLE, Evidence
from router.learning.question import Question
from router.learning.store import EvidenceFile


@dataclass(frozen=True, slots=True)
class Kept:
    """The texts of a piece of evidence: what was asked, and the answers by rung."""

    prompt: Prompt
    answers: tuple[str, ...]

    @classmethod
    def of(cls, kept: str) -> "Kept":
        """The texts in `Evidence.kept`. Raises ValueError."""
        try:
            found: Any = orjson.loads(kept)
            return cls(chat_form.from_list(found["messages"]), tuple(map(str, found["answers"])))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no kept texts: {error}") from error


@dataclass(frozen=True)
class Open:
    """A question that nobody has answered, and the evidence that waits for it.

    Attributes:
        other: the answer beside the one that was served.
        rungs: positions of the rungs that gave it, by decision.
    """

    question: Question
    other: str
    rungs: dict[str, list[int]] = field(default_factory=dict)

    def loss(self, answered: Question) -> float:
        """How much the other answer loses against the served one, as people have said. Raises ValueError."""
        right = dict(answered.said)
        (served,) = set(right) - {self.other}
        return max(0.0, right[served] - right[self.other])


@dataclass(frozen=True)
class Queue:
    """The open questions, newest first.

    Attributes:
        pieces: pieces of evidence with an answer that counts as lost, as nobody has said anything of it.
        kept: how many of these have their texts.
    """

    questions: tuple[Open, ...]
    pieces: int
    kept: int

    def about(self, question: Question) -> Open | None:
        """The open question that a line asks, by its prompt and answers. Raises ValueError."""
        wanted = question.asked, set(question.answers.values())
        return next((o for o in self.questions if (o.question.asked, set(o.question.answers.values())) == wanted), None)


def queue(folder: Path) -> Queue:
    """What people may be asked. Raises OutcomeFileError."""
    found: dict[tuple[Prompt, str, str], Open] = {}
    pieces = kept = 0
    for _, one in store.read(folder):
        if lost := list(_lost(one)):
            pieces, kept = pieces + 1, kept + bool(one.kept)
            for prompt, served, rung, other in _texts(one, lost, folder):
                key = prompt, served, other
                about = found.pop(key, None) or Open(Question.of(prompt, (served, other)), other)
                about.rungs.setdefault(one.decision_id, []).append(rung)
                found[key] = about  # at the end, as the newest
    return Queue(tuple(reversed(found.values())), pieces, kept)


def keep(folder: Path, about: Open, answered: Question) -> None:
    """Write what people said into the evidence, at once. Raises OutcomeFileError, ValueError."""
    # Beside a served answer of 1: what they say of two answers is how much is lost from one to the other.
    right = 1 - about.loss(answered)
    with closing(EvidenceFile(folder)) as file:
        for decision_id, rungs in about.rungs.items():
            file.judge(decision_id, dict.fromkeys(rungs, right))


def _lost(one: Evidence) -> Iterator[int]:
    """Positions of the rungs whose answer counts as lost, and that people may judge."""
    if one.judge in ("", PEOPLE):
        bounds = zip(one.losses(), one.judged, strict=True)
        yield from (i for i, (loss, judged) in enumerate(bounds) if loss > 0 and judged is None)


def _texts(one: Evidence, lost: list[int], folder: Path) -> Iterator[tuple[Prompt, str, int, str]]:
    """What was asked, the served answer, and each answer that counts as lost with its rung."""
    if not one.kept:
        return
    try:
        texts = Kept.of(one.kept)
        if len(texts.answers) != len(one.ladder):
            raise ValueError("answers and rungs differ in number")
    except ValueError as error:
        raise OutcomeFileError(f"{folder / store.FILE}: evidence of {one.decision_id}: {error}") from error
    served = texts.answers[-1]
    # Equal texts that count as different, such as two that were cut off, leave nothing to choose from.
    yield from ((texts.prompt, served, rung, texts.answers[rung]) for rung in lost if texts.answers[rung] != served)
