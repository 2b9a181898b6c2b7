"""`budget-router label`: people judge answers that differ from the one that was served, one key each."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.columns import Columns
from rich.markup import escape
from rich.panel import Panel

from router.cli.display import console, plain
from router.cli.learning import FOLDER, require_folder
from router.cli.strict import Command, File, NewFile, json_option
from router.digits import counted
from router.errors import OutcomeFileError
from router.files import write_private

if TYPE_CHECKING:
    from router.learning.people import Open, Queue
    from router.learning.question import Question

KEYS = {"a": "A", "b": "B", "2": "both", "0": "neither"}
"""What a key says of the two answers: which of them is right."""

SKIP, QUIT = "s", "q"
ENDS = ("\x03", "\x04", "")
"""Ctrl-C, Ctrl-D, and the end of the input, which quit as well."""

SHOWN = "[a] only A is right  [b] only B  [2] both  [0] neither  [s] skip  [q] quit"
WIDE = 100
"""Columns of a terminal in which two answers stand side by side."""

NO_TEXTS = "BUDGET_ROUTER_LOG_PROMPTS=true has the service keep the texts, which people need"


@click.command(cls=Command)
@FOLDER
@click.option("--limit", type=click.IntRange(min=1), help="Most questions to ask [default: all].")
@click.option("--out", type=NewFile(), help="JSON Lines to write: the questions.")
@click.option("--take", type=File(), help="JSON Lines to take back, with `right` filled in.")
@json_option
def label(folder: Path, limit: int | None, out: Path | None, take: Path | None, as_json: bool) -> None:
    """Judge answers that differ from the one that was served: both are shown, and one key says which is right.

    Their order does not tell which was served. Each key is kept at once, so the command may end at any moment, and
    goes on where it was. The service must keep texts (BUDGET_ROUTER_LOG_PROMPTS).

    \b
    Without a terminal:
      budget-router label --out questions.jsonl
      (set `right` in each line to "A", "B", "both" or "neither")
      budget-router label --take questions.jsonl
    """
    from router.learning import people, store

    if out is not None and take is not None:
        raise click.UsageError("give --out FILE or --take FILE, one of them")
    require_folder(folder)
    if take is not None:
        _take(folder, take, as_json)
        return
    if out is None and not as_json and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("needs a terminal; `--out FILE` writes the questions, and `--take FILE` takes them back")
    found = people.queue(folder)
    if found.kept < found.pieces:
        click.echo(f"{found.pieces - found.kept:,} more without their texts: {NO_TEXTS}", err=True)
    elif not found.pieces:
        known = counted(store.count(folder), "piece")
        click.echo(f"{known} of evidence, and nobody need judge one: see `budget-router status`", err=True)
    lines = [one.question.to_json() + "\n" for one in found.questions[:limit]]
    if out is not None:
        _write(lines, out, as_json)
    elif as_json:
        click.echo("".join(lines), nl=False)
    else:
        _ask(folder, found, limit)


def _write(lines: Sequence[str], out: Path, as_json: bool) -> None:
    """Write questions, for their owner alone: they have prompts. Raises UsageError where replies would be lost."""
    if out.exists():
        raise click.UsageError(f"--out: {out} exists, and may hold replies")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_private(out, "".join(lines))
    counts = {"file": str(out), "questions": len(lines)}
    click.echo(json.dumps(counts) if as_json else f"{counted(len(lines), 'question')}: {out}")


def _ask(folder: Path, found: "Queue", limit: int | None) -> None:
    """The terminal: ask until the last question, or until somebody quits."""
    from router.learning import people

    wanted = found.questions[:limit]
    said = asked(wanted, click.getchar, partial(people.keep, folder))
    left = len(wanted) - said
    click.echo(f"{counted(said, 'answer')} kept" + (f"; {counted(left, 'question')} left" if left else ""))


def asked(wanted: "Sequence[Open]", getchar: Callable[[], str], keep: "Callable[[Open, Question], None]") -> int:
    """Show each question and keep what the key says; returns how many were answered.

    Args:
        getchar: waits for a key; "" at the end of the input.
        keep: keeps a question with its reply.
    """
    said = 0
    for number, about in enumerate(wanted, 1):
        _show(about.question, f"{number} of {len(wanted)}")
        key = _key(getchar)
        if key == QUIT:
            break
        if key in KEYS:
            keep(about, replace(about.question, right=KEYS[key]))
            said += 1
    return said


def _key(getchar: Callable[[], str]) -> str:
    """The next key that says something."""
    while True:
        try:
            key = getchar().lower()
        except (EOFError, KeyboardInterrupt):
            return QUIT
        if key in ENDS:
            return QUIT
        if key in (*KEYS, SKIP, QUIT):
            return key


def _show(question: "Question", place: str) -> None:
    console.rule(place)
    console.print(escape(_conversation(question)))
    answers = [_panel(name, text) for name, text in question.answers.items()]
    if console.width >= WIDE:
        console.print(Columns(answers, width=console.width // 2 - 1, equal=True))
    else:
        for one in answers:
            console.print(one)
    click.secho(SHOWN, dim=True)


def _conversation(question: "Question") -> str:
    """What was asked: the text, or all turns with their roles."""
    if question.messages is None:
        return plain(question.prompt)
    turns = question.asked.messages
    return "\n\n".join(f"{turn.role.value}: {plain(turn.content)}" for turn in turns)


def _panel(name: str, text: str) -> Panel:
    return Panel(escape(plain(text).strip()) or "[dim](no answer)[/]", title=name, title_align="left")


def _take(folder: Path, path: Path, as_json: bool) -> None:
    """Take the replies of a list back. Raises OutcomeFileError with the line that is malformed."""
    from router.learning import people
    from router.learning.question import Question

    found, said, unanswered, unknown = people.queue(folder), 0, 0, 0
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            given = Question.parsed(line)
            if not given.said:
                unanswered += 1
            elif (about := found.about(given)) is None:
                unknown += 1
            else:
                people.keep(folder, about, given)
                said += 1
        except (ValueError, RecursionError) as error:
            raise OutcomeFileError(f"{path}: line {number}: {error}") from error
    counts = {"taken": said, "unanswered": unanswered, "not_open": unknown}
    text = f"{counted(said, 'answer')} taken; {unanswered} without a reply, {unknown} no longer open"
    click.echo(json.dumps(counts) if as_json else text)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise OutcomeFileError(f"{path}: is not UTF-8") from error
