"""The command `budget-train wrap`."""

import json
from pathlib import Path

import click

from router.cli.strict import Command, File, NewFile
from router.digits import counted
from training.options import json_output
from training.wrapping import wrap as wrapping
from training.wrapping.kinds import KINDS


@click.command(cls=Command)
@click.argument("file", type=File())
@click.option("--out", type=NewFile(), required=True, help="Parquet file to write.")
@click.option("--each", type=click.IntRange(1, len(KINDS)), default=wrapping.EACH, show_default=True,
              help="Conversations made of each prompt, each of another kind.")  # fmt: skip
@click.option("--kind", "kinds", type=click.Choice(list(KINDS)), multiple=True,
              help="Make only this kind; may be repeated [default: all].")  # fmt: skip
@click.option("--seed", default=wrapping.SEED, show_default=True, help="Seed of what is drawn.")
@json_output
def wrap(file: Path, out: Path, each: int, kinds: tuple[str, ...], seed: int, as_json: bool) -> None:
    """Add conversations to a file of bare prompts: documents, follow-ups, system prompts, tool results around them.

    Their outcomes are those of the bare prompt. This assumes that what stands around a question does not change what it
    needs. The conversations of a prompt share its group, so they lie on its side of the split.
    """
    try:
        made = wrapping.wrap(file, out, each, seed, kinds or tuple(KINDS))
    except OSError as error:
        raise click.BadParameter(str(error), param_hint="--out") from error
    click.echo(json.dumps({"file": str(out), "made": made}) if as_json else f"{counted(made, 'conversation')}: {out}")
