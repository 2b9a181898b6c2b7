"""`budget-router status` and `budget-router learn`: what was learned from what was served."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import click
from click.core import ParameterSource

from router.cli.options import takes_credentials
from router.cli.strict import NEW_FOLDER, Command, Group, NewFile, Number, json_option
from router.client import Credentials
from router.client.operator import ADMIN, learning_status
from router.digits import counted
from router.extras import needs

FOLDER = click.option(
    "--folder", type=NEW_FOLDER, default=Path("var/learning"), show_default=True, envvar="BUDGET_ROUTER_LEARN_FOLDER",
    help="The learning folder, BUDGET_ROUTER_LEARN_FOLDER of the service.",
)  # fmt: skip
TOKEN = "BUDGET_ROUTER_ADMIN_TOKEN"
"""The variable of the service from which the command takes the token, too."""


@click.command(cls=Command)
@click.option("--server", "--url", metavar="HOST:PORT", help=f"The admin service of a running router, such as {ADMIN}.")
@takes_credentials
@FOLDER
@click.option("--price-out", type=Number(0), help="Price of a million thinking and answer tokens, in any currency.")
@json_option
def status(server: str | None, credentials: Credentials, folder: Path, price_out: float | None, as_json: bool) -> None:
    """Say how far the service has come in learning from what it serves, and what that has saved.

    Asks the admin service where --server or BUDGET_ROUTER_ADMIN_TOKEN is given, else reads the learning folder.
    """
    from router.cli import learning_screen
    from router.learning.overview import Overview, read

    asked = _server(server)
    if asked is None:
        require_folder(folder)
        overview = read(folder)
    else:
        key = credentials.key or os.environ.get(TOKEN, "")
        overview = Overview.of(learning_status(asked, replace(credentials, key=key)))
    if as_json:
        click.echo(json.dumps(overview.to_json() | {"next": learning_screen.next_step(overview)}))
    else:
        learning_screen.show(overview, price_out)


@click.group(cls=Group)
def learn() -> None:
    """Take what was learned away, or out."""


@learn.command()
@FOLDER
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def reset(folder: Path, yes: bool, as_json: bool) -> None:
    """Begin to learn anew: the evidence is moved aside, and nothing is deleted. The service may be running.

    Bundles that were promoted stay: `budget-train rollback` returns to the one before. Exit code 1: the answer was no.
    """
    from router.learning import folders

    require_folder(folder)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise click.UsageError("--yes is needed where nobody can be asked")
        if not click.confirm(f"Move the evidence in {folder} aside and begin anew?", err=True):
            click.echo("nothing was moved", err=True)
            sys.exit(1)
    aside = folders.reset(folder)
    click.echo(json.dumps({"folder": str(folder), "moved_to": str(aside)}) if as_json else f"moved to {aside}")


@learn.command()
@FOLDER
@click.option("--out", type=NewFile(), required=True, help="File to write: .parquet or .jsonl.")
@json_option
def export(folder: Path, out: Path, as_json: bool) -> None:
    """Write the evidence, one row a request. It has texts only where the service kept them (LOG_PROMPTS)."""
    require_folder(folder)
    pieces = _writer(out)(folder, out)
    said = f"{counted(pieces, 'piece')} of evidence: {out}"
    click.echo(json.dumps({"file": str(out), "evidence": pieces}) if as_json else said)


def _writer(out: Path) -> Callable[[Path, Path], int]:
    """What writes such a file. Raises UsageError, MissingExtra."""
    if out.suffix == ".jsonl":
        from router.learning.folders import write_lines

        return write_lines
    if out.suffix != ".parquet":
        raise click.UsageError("--out: the name must end in .parquet or .jsonl")
    with needs("train"):  # by name: serving never imports training
        writer: Callable[[Path, Path], int] = import_module("training.data.evidence").write
    return writer


def _server(given: str | None) -> str | None:
    """The admin service to ask; None where the folder is to be read. Raises UsageError where both are named."""
    folder_named = click.get_current_context().get_parameter_source("folder") is ParameterSource.COMMANDLINE
    if given is not None:
        if folder_named:
            raise click.UsageError("give --server or --folder, one of them")
        return given
    if folder_named or not os.environ.get(TOKEN):
        return None
    return os.environ.get("BUDGET_ROUTER_ADMIN_LISTEN") or ADMIN


def require_folder(folder: Path) -> None:
    """Raise UsageError where nothing was learned in a folder."""
    if not folder.is_dir():
        raise click.UsageError(
            f"{folder}: no such folder; `budget-router serve --learn observe` begins one, and --folder names another"
        )
