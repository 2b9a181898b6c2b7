"""Options of a command that has an answer drawn: how to draw it, and its form."""

import json
from functools import wraps
from pathlib import Path
from typing import Any

import click

from router.cli.options import Command, with_options
from router.cli.strict import File, Number
from router.client import ResponseFormat, Sampling

PENALTY = Number(-2, 2)
_DRAWN = (
    click.option("--temperature", type=Number(0, 2), help="0 = greedy [default: the engine's]."),
    click.option("--top-p", type=Number(0, 1, min_open=True), help="Draw from the likeliest tokens of this chance."),
    click.option("--top-k", type=click.IntRange(min=1), help="Draw from so many of the likeliest tokens."),
    click.option("--min-p", type=Number(0, 1), help="Draw from tokens at least this likely beside the first."),
    click.option("--presence-penalty", type=PENALTY, help="Make tokens less likely that have come before."),
    click.option("--frequency-penalty", type=PENALTY, help="The same, by how often they have."),
    click.option("--repetition-penalty", type=Number(0, 2, min_open=True), help="The same as a factor; 1 = no effect."),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Draw the same again."),
    click.option("--max-answer-tokens", type=click.IntRange(min=1), help="Cut the answer here."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before TEXT; several may be given."),
    click.option(
        "--logprobs",
        "top_logprobs",
        type=click.IntRange(0, 20),
        metavar="N",
        help="With --json: log-probabilities of the answer's tokens, and the N likeliest at each place.",
    ),
)
_FORM = (
    click.option("--response-format", type=click.Choice(["text", "json_object"]), help="The form of the answer."),
    click.option("--json-schema", type=File(), help="File with the JSON schema that the answer follows."),
)


def sampling_options(command: Command) -> Command:
    """The command gets `sampling` and `form`, which its own options ask for."""

    @wraps(command)
    def asked(response_format: str | None, json_schema: Path | None, as_json: bool, **given: Any) -> None:
        if response_format is not None and json_schema is not None:
            raise click.UsageError("--response-format and --json-schema exclude each other")
        if given["top_logprobs"] is not None and not as_json:
            raise click.UsageError("--logprobs needs --json")
        drawn: Any = {name: given.pop(name) for name in Sampling.__annotations__ if name in given}
        drawn |= {"stop": list(drawn["stop"]) or None, "logprobs": drawn["top_logprobs"] is not None or None}
        form = None if response_format is None else ResponseFormat(response_format)  # type: ignore[arg-type]
        if json_schema is not None:
            form = ResponseFormat("json_schema", _schema(json_schema))
        command(sampling=drawn, form=form, as_json=as_json, **given)

    return with_options((*_DRAWN, *_FORM), asked)


def _schema(file: Path) -> dict[str, Any]:
    """The schema that a file holds. Raises UsageError."""
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--json-schema: {file} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.UsageError(f"--json-schema: {file} holds no JSON object")
    return found
