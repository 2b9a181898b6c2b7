"""Prompts whose answers can be scored: from a file, from reasoning-gym, or the pocket reasoner's held-out ones."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from router.digits import counted, verb
from training.collect.agreement import AGREEMENT
from training.collect.judge import JUDGE
from training.collect.scorers import SCORERS
from training.data.schema import DatasetError
from training.data.splits import prompt_id
from training.pocket import gym
from training.pocket.tasks import FAMILIES, LEVELS, held_out, items
from training.progress import say

NAMES = (*SCORERS, *AGREEMENT, JUDGE)
"""Names of all scorers."""

FIELDS = frozenset(("prompt", "answer", "task", "group", "scorer", "metadata"))


@dataclass(frozen=True)
class Question:
    """A prompt whose answers can be scored.

    Attributes:
        reference: the right answer, as the scorer reads it; "" where none is known.
        group: questions of one group never lie in two splits.
        scorer: a name in NAMES.
        metadata: further input of the scorer.
    """

    prompt: str
    reference: str
    task: str | None
    group: str
    scorer: str
    metadata: Mapping[str, Any]


def from_file(path: Path, scorer: str) -> list[Question]:
    """Questions of a JSON Lines file, each once; a line has `prompt`, `answer` and optionally the other FIELDS.

    Args:
        scorer: for questions that name none.

    Raises:
        DatasetError: a line is wrong, or has another answer to an earlier prompt; the message names file and line.
    """
    found: dict[str, tuple[int, Question]] = {}
    repeated = 0
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                question = _parsed(line, scorer, f"{path}: line {number}")
                first, same = found.setdefault(question.prompt, (number, question))
                if same != question:
                    raise DatasetError(f"{path}: line {number}: has the prompt of line {first}, and another answer")
                repeated += number != first
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}") from error
    if not found:
        raise DatasetError(f"{path}: no questions")
    if repeated:
        say(f"collect: {counted(repeated, 'line')} left out, which {verb(repeated, 'repeats', 'repeat')} another")
    return [question for _, question in found.values()]


def from_gym(names: Sequence[str], count: int, seed: int) -> list[Question]:
    """`count` questions of each reasoning-gym data set, by its default settings.

    Raises:
        DatasetError: no data set has a given name.
    """
    found: dict[str, Question] = {}
    for name in names:
        try:
            entries = gym.generate(name, count, seed)
        except ValueError as error:
            raise DatasetError(f"reasoning-gym: {error}") from None
        found |= {entry["question"]: _of_gym(entry, name, name) for entry in (entries[i] for i in range(count))}
    return list(found.values())


def held_out_questions(per_level: int, seed: int) -> list[Question]:
    """Distinct questions that the pocket reasoner was not trained on: at most `per_level` of each family and level."""
    chosen: dict[str, Question] = {}
    for family in FAMILIES:
        for level in range(LEVELS):
            # Small families have few distinct questions; without a bound the search for one more would never end.
            candidates = islice(items(family, level, seed), 20 * per_level)
            fresh = {i.question: i for i in candidates if held_out(i.question)}
            for item in list(fresh.values())[:per_level]:
                chosen[item.question] = _of_gym(item.entry, item.family, f"{item.family}/{item.level}")
    return list(chosen.values())


def digest(questions: Sequence[Question]) -> str:
    """SHA-256 of the questions, their references and scorers, in order."""
    hashed = hashlib.sha256()
    for question in questions:
        hashed.update(json.dumps(asdict(question), sort_keys=True, default=str).encode())
    return hashed.hexdigest()


def _of_gym(entry: Mapping[str, Any], dataset: str, task: str) -> Question:
    metadata = {"dataset": dataset, "entry": entry}
    text = entry["question"]
    return Question(text, str(entry["answer"]), task, prompt_id(text), "reasoning-gym", metadata)


def _parsed(line: str, scorer: str, where: str) -> Question:
    try:
        given = json.loads(line)
    except ValueError:
        raise DatasetError(f"{where}: is not JSON") from None
    if not isinstance(given, dict):
        raise DatasetError(f"{where}: is not a JSON object")
    for fault in _faults(given, scorer):
        raise DatasetError(f"{where}: {fault}")
    scorer = given.get("scorer", scorer)
    reference, metadata = str(given.get("answer", "")), given.get("metadata", {})
    # Scoring an empty answer finds a reference that cannot be scored now, not after hours of collection.
    try:
        if scorer in SCORERS:
            SCORERS[scorer]("", reference, metadata)
    except (KeyError, ValueError) as error:
        raise DatasetError(f"{where}: {scorer} cannot score it: {error}") from None
    text = given["prompt"]
    return Question(text, reference, given.get("task"), given.get("group", prompt_id(text)), scorer, metadata)


def _faults(given: dict[str, Any], scorer: str) -> Iterator[str]:
    for name in sorted(set(given) - FIELDS):
        yield f"unknown field {name!r}; the fields are {', '.join(sorted(FIELDS))}"
    for name in ("prompt", "group", "task", "scorer"):
        if name in given and (not isinstance(given[name], str) or not given[name]):
            yield f"{name} is not a non-empty string"
    if "prompt" not in given:
        yield "prompt is missing"
    if given.get("scorer", scorer) not in NAMES:
        yield f"unknown scorer {given['scorer']!r}; the scorers are {', '.join(NAMES)}"
    if not isinstance(given.get("metadata", {}), dict):
        yield "metadata is not an object"
    if "answer" not in given and given.get("scorer", scorer) not in ("reasoning-gym", *AGREEMENT, JUDGE):
        yield (
            f"answer is missing; without answers, --scorer {next(iter(AGREEMENT))} compares with the top rung, and "
            f"--scorer {JUDGE} asks another model"
        )
