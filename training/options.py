"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

json_output = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def one_file(name: str, help: str) -> Callable[[Command], Command]:
    """A required option that names one file. It refuses a second file, where click would silently use the last."""
    return click.option(name, type=Path, multiple=True, required=True, callback=_only, help=help)


def _only(ctx: click.Context, param: click.Parameter, paths: tuple[Path, ...]) -> Path:
    if len(paths) > 1:
        raise click.BadParameter(f"takes one file, not {len(paths)}: put all rows into one file first")
    return paths[0]
