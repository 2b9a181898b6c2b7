"""The prompts whose labels a certificate needs next, as questions to those who label."""

from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from itertools import islice
from pathlib import Path

import numpy as np

from router.digits import counted
from router.domain import Prompt
from router.files import replaced
from router.learning.question import Question
from training.certification import free_zeros
from training.data.answers import TRACE
from training.data.schema import DatasetError
from training.labelling.evidence import Evidence, answers_to
from training.labelling.replies import replies


def questions(evidence: Evidence, path: Path, alpha: float, limit: int, per_prompt: bool = False) -> list[Question]:
    """The questions that a target needs next, most valuable first.

    Args:
        path: the outcome file of `evidence`.
        alpha: the target.
        limit: most questions.
        per_prompt: the target holds by each prompt's own forecast.

    Raises:
        DatasetError: the file has no key of an answer that is to be labelled.
    """
    wanted = dict(islice(_wanted(evidence, alpha, per_prompt), limit))
    lacking: dict[Prompt, set[str | None]] = defaultdict(set)
    for one in answers_to(path, wanted):
        if one.correct is None and one.rung in wanted[one.prompt]:
            lacking[one.prompt].add(one.identity)
    return [_question(prompt, lacking[prompt]) for prompt in wanted]


def _question(prompt: Prompt, answers: Set[str | None]) -> Question:
    keys = [key for key in answers if key is not None and not key.startswith(TRACE)]
    if len(keys) < len(answers):
        raise DatasetError(f"column answer: is missing, so there is nothing to label: prompt {prompt.text[:40]!r}")
    return Question.of(prompt, keys)


def write(asked: Sequence[Question], out: Path, path: Path) -> None:
    """Write questions as JSON Lines, for their owner alone.

    Raises:
        DatasetError: `out` has answers that were not taken back into the outcome file `path`.
        OSError: it cannot be written.
    """
    if out.exists() and (left := untaken(out, path)):
        raise DatasetError(
            f"{out}: {counted(left, 'answered question')} in it would be lost; `budget-train label --take {out}` takes "
            "them back"
        )
    with replaced(out) as aside:
        aside.write_text("".join(one.to_json() + "\n" for one in asked), encoding="utf-8")


def untaken(out: Path, path: Path) -> int:
    """Answered questions of a list whose labels are not in an outcome file yet."""
    said = replies(out).labels
    found = answers_to(path, {prompt for prompt, _ in said})
    return len({one.prompt for one in found if one.correct is None and (one.prompt, one.identity) in said})


def _wanted(evidence: Evidence, alpha: float, per_prompt: bool) -> Iterator[tuple[Prompt, tuple[int, int]]]:
    """Prompts to ask about, each once, with the chosen rung and the top one."""
    parts, top = [part for part, _ in evidence.samples], len(evidence.bundle.manifest.ladder) - 1
    prompts = [prompt for part in parts for prompt in part.prompts]
    asked = set()
    every = free_zeros.ahead(evidence.sequences(alpha, per_prompt), evidence.samples, alpha)
    for one, row in ((each, row) for each in every for row in each.rows[: each.least]):
        if prompts[row] not in asked:
            asked.add(prompts[row])
            yield prompts[row], (int(np.concatenate(one.policy.chosen)[row]), top)
