"""Prompts whose answers can be scored: from a file, from reasoning-gym, or the pocket reasoner's held-out ones."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from router import chat_form
from router.chat_form import ChatFormError
from router.digits import counted, verb
from router.domain import Message, Prompt
from training.collect.agreement import AGREEMENT
from training.collect.judge import JUDGE
from training.collect.scorers import SCORERS
from training.data.schema import DatasetError, naming_file
from training.data.splits import identity, prompt_id
from training.pocket import gym
from training.pocket.tasks import FAMILIES, LEVELS, Family, Item, held_out, items
from training.progress import say

NAMES = (*SCORERS, *AGREEMENT, JUDGE)
"""Names of all scorers."""

FIELDS = frozenset(("prompt", "messages", "answer", "task", "group", "scorer", "metadata"))


@dataclass(frozen=True)
class Question:
    """A prompt whose answers can be scored.

    Attributes:
        prompt: what a user asks last.
        reference: the right answer, as the scorer reads it; "" where none is known.
        group: questions of one group never lie in two splits.
        scorer: a name in NAMES.
        metadata: further input of the scorer.
        conversation: the whole of it, where there is more than the prompt.
    """

    prompt: str
    reference: str
    task: str | None
    group: str
    scorer: str
    metadata: Mapping[str, Any]
    conversation: Prompt | None = None

    @property
    def asked(self) -> Prompt:
        """What is sent to an engine."""
        return self.conversation or Prompt.of(self.prompt)

    @property
    def identity(self) -> str:
        """The `prompt_id` of its outcomes."""
        return identity(self.asked)

    @property
    def transcript(self) -> str:
        """The question as a judge reads it: the prompt, or all messages with who speaks."""
        if self.conversation is None:
            return self.prompt
        return "\n\n".join(_spoken(message) for message in self.conversation.messages)


def _spoken(message: Message) -> str:
    calls = [f"[calls {call.name}({call.arguments})]" for call in message.tool_calls]
    return " ".join([f"{message.role.value}:", *filter(None, [message.content, *calls])])


def from_file(path: Path, scorer: str) -> list[Question]:
    """Questions of a JSON Lines or Parquet file, each once.

    Each has `prompt` or `messages` (as in the OpenAI chat API), `answer`, and optionally the other FIELDS.

    Args:
        scorer: for questions that name none.

    Raises:
        DatasetError: a line is wrong, or has another answer to an earlier prompt; the message names file and line.
    """
    found: dict[Prompt, tuple[str, Question]] = {}
    repeated = 0
    try:
        for where, given in _rows(path) if path.suffix == ".parquet" else _lines(path):
            question = _parsed(given, scorer, f"{path}: {where}")
            first, same = found.setdefault(question.asked, (where, question))
            if same != question:
                raise DatasetError(f"{path}: {where}: has the prompt of {first}, and another answer")
            repeated += where != first
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}") from error
    if not found:
        raise DatasetError(f"{path}: no questions")
    if repeated:
        say(f"collect: {counted(repeated, 'line')} left out, which {verb(repeated, 'repeats', 'repeat')} another")
    return [question for _, question in found.values()]


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, each with its place. Raises DatasetError, OSError, UnicodeDecodeError."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            yield f"line {number}", _object(line, f"{path}: line {number}")


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet file without what is null; texts of `messages` and `metadata` are read as JSON."""
    with naming_file(path):
        table = pl.read_parquet(path)
    for number, row in enumerate(table.iter_rows(named=True)):
        given = {name: value for name, value in row.items() if value is not None}
        if isinstance(given.get("metadata"), str):
            given["metadata"] = _object(given["metadata"], f"{path}: row {number}: metadata")
        yield f"row {number}", given


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise DatasetError(f"{where}: is not JSON") from None
    if not isinstance(given, dict):
        raise DatasetError(f"{where}: is not a JSON object")
    return given


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
            for item in _fresh(family, level, per_level, seed):
                chosen[item.question] = _of_gym(item.entry, item.family, f"{item.family}/{item.level}")
    return list(chosen.values())


def _fresh(family: Family, level: int, count: int, seed: int) -> Iterable[Item]:
    """The first `count` items whose questions are held out and differ, or fewer."""
    fresh: dict[str, Item] = {}
    # Small families have few distinct questions; without a bound the search for one more would never end.
    for item in islice(items(family, level, seed), 20 * count):
        if held_out(item.question):
            fresh.setdefault(item.question, item)
        if len(fresh) == count:
            break
    return fresh.values()


def digest(questions: Sequence[Question]) -> str:
    """SHA-256 of the questions, their references and scorers, in order."""
    hashed = hashlib.sha256()
    for question in questions:
        said = {name: value for name, value in asdict(question).items() if name != "conversation" or value}
        hashed.update(json.dumps(said, sort_keys=True, default=str).encode())
    return hashed.hexdigest()


def _of_gym(entry: Mapping[str, Any], dataset: str, task: str) -> Question:
    metadata = {"dataset": dataset, "entry": entry}
    text = entry["question"]
    return Question(text, str(entry["answer"]), task, prompt_id(text), "reasoning-gym", metadata)


def _parsed(given: dict[str, Any], scorer: str, where: str) -> Question:
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
    asked = _asked(given, where)
    conversation = None if asked == Prompt.of(asked.text) else asked
    group = given.get("group", identity(asked))
    return Question(asked.text, reference, given.get("task"), group, scorer, metadata, conversation)


def _asked(given: dict[str, Any], where: str) -> Prompt:
    """What a question asks. Raises DatasetError."""
    if "messages" not in given:
        return Prompt.of(given["prompt"])
    messages = given["messages"]
    try:
        asked = chat_form.from_json(messages) if isinstance(messages, str) else chat_form.from_list(messages)
    except ChatFormError as error:
        raise DatasetError(f"{where}: {error}") from None
    if given.get("prompt", asked.text) != asked.text:
        raise DatasetError(f"{where}: prompt is not what the messages ask last; either of them is enough")
    return asked


def _faults(given: dict[str, Any], scorer: str) -> Iterator[str]:
    for name in sorted(set(given) - FIELDS):
        yield f"unknown field {name!r}; the fields are {', '.join(sorted(FIELDS))}"
    for name in ("prompt", "group", "task", "scorer"):
        if name in given and (not isinstance(given[name], str) or not given[name]):
            yield f"{name} is not a non-empty string"
    if "prompt" not in given and "messages" not in given:
        yield "prompt is missing, and there are no messages"
    if given.get("scorer", scorer) not in NAMES:
        yield f"unknown scorer {given['scorer']!r}; the scorers are {', '.join(NAMES)}"
    if not isinstance(given.get("metadata", {}), dict):
        yield "metadata is not an object"
    if "answer" not in given and given.get("scorer", scorer) not in ("reasoning-gym", *AGREEMENT, JUDGE):
        yield (
            f"answer is missing; without answers, --scorer {next(iter(AGREEMENT))} compares with the top rung, and "
            f"--scorer {JUDGE} asks another model"
        )
