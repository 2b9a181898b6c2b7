"""What a labeller wrote into a list of questions, and its way back into the outcome file."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from router import files
from router.domain import Prompt
from router.learning.question import Question
from training.data.answers import NOTHING
from training.data.dataset import prompts_of
from training.data.faults import faults
from training.data.schema import DatasetError, conformed, naming_file, write
from training.labelling.evidence import answers_to, rows_of


@dataclass(frozen=True)
class Replies:
    """A list of questions as it comes back.

    Attributes:
        labels: how right (0..1) an answer is, and the line that says so, by prompt and answer.
        unanswered: questions without a reply.
    """

    labels: dict[tuple[Prompt, str], tuple[float, int]]
    unanswered: int


@dataclass(frozen=True)
class Taken:
    """What came into the outcome file.

    Attributes:
        questions: prompts with a reply.
        rows: rows that got their label.
        unanswered: questions without a reply.
    """

    questions: int
    rows: int
    unanswered: int


def replies(path: Path) -> Replies:
    """Read a list of questions. Raises DatasetError with the number of the first line that is malformed."""
    labels: dict[tuple[Prompt, str], tuple[float, int]] = {}
    unanswered = 0
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            given = Question.parsed(line)
            unanswered += given.right is None
            prompt = given.asked
            for answer, correct in given.said:
                key = prompt, answer
                before = labels.setdefault(key, (correct, number))
                if before[0] != correct:
                    raise ValueError(f"contradicts line {before[1]}")
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path}: line {number}: {error}") from None
    return Replies(labels, unanswered)


def take(path: Path, outcomes: Path, source: str) -> Taken:
    """Write the labels of a list of questions into an outcome file, all of them or none.

    Args:
        path: the list.
        source: who labelled, as in the column `label_source`.

    Raises:
        DatasetError: a line is malformed, of another file, or contradicts another line or a label of the file; the
            message has its number.
        OSError: the file cannot be written.
    """
    with files.locked(outcomes.absolute().parent):
        said = replies(path)
        with naming_file(outcomes):
            known = _known(said, outcomes)
        _require_known(said, known, path, outcomes)
        with naming_file(outcomes):
            count = _write(said, outcomes, source)
    return Taken(len({prompt for prompt, _ in said.labels}), count, said.unanswered)


def _write(said: Replies, outcomes: Path, source: str) -> int:
    """Write labels into the rows that lack them; returns how many there are."""
    rows = rows_of(outcomes).collect()
    asked = zip(prompts_of(rows), rows["identity"], rows["correct"], strict=True)
    new = [said.labels.get((prompt, answer)) if correct is None else None for prompt, answer, correct in asked]
    fresh = pl.DataFrame({"said": [None if one is None else one[0] for one in new]}, {"said": pl.Float64()})
    # Labels of mere agreement stay where nothing else was said.
    both = pl.concat([conformed(pl.scan_parquet(outcomes)).collect(), fresh], how="horizontal")
    label_source = pl.when(pl.col("said").is_not_null()).then(pl.lit(source)).otherwise(pl.col("label_source"))
    write(both.with_columns(correct=pl.coalesce("said", "correct"), label_source=label_source).drop("said"), outcomes)
    return len(fresh) - fresh["said"].null_count()


def _known(said: Replies, outcomes: Path) -> dict[tuple[Prompt, str], set[float]]:
    """The labels of a file's answers to the prompts that a list is about, by prompt and answer."""
    for fault in faults(pl.scan_parquet(outcomes), soft=True, unlabelled=True):
        raise DatasetError(fault)
    known: dict[tuple[Prompt, str], set[float]] = {}
    for one in answers_to(outcomes, {prompt for prompt, _ in said.labels}):
        if one.identity not in (NOTHING, None):
            known.setdefault((one.prompt, one.identity), set()).update(() if one.correct is None else (one.correct,))
    return known


def _require_known(said: Replies, known: dict[tuple[Prompt, str], set[float]], path: Path, outcomes: Path) -> None:
    """Raise DatasetError, with the line, where a label is of another file or contradicts this one."""
    for key, (correct, line) in said.labels.items():
        if key not in known:
            raise DatasetError(f"{path}: line {line}: its prompt or answer is not in {outcomes}")
        if known[key] - {correct}:
            raise DatasetError(f"{path}: line {line}: contradicts the label {min(known[key]):g} in {outcomes}")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}") from error
