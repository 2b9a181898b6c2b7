"""Options that several commands share."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from router.cli.strict import File, FileOrUrl, Number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENGINES = click.Choice(["vllm", "sglang", "llama_cpp", "openai_effort"])
"""Kinds of engines; their table is not imported for a help text."""

outcomes_file = click.option("--outcomes", type=File(), required=True, help="Parquet file of the outcome schema.")
soft_budgets = click.option("--soft-budgets", "soft", is_flag=True,
                            help="Budgets of the file are a provider's hints: tokens may exceed them.")  # fmt: skip
outcome_log = click.option("--log", type=FileOrUrl(), default="var/outcomes.sqlite", show_default=True,
                           help="File or Redis URL of the outcome log; the service may be running.")  # fmt: skip
json_output = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _key(_context: click.Context, _option: click.Parameter, file: Path | None) -> str:
    if file is None:
        return os.environ.get("BUDGET_ROUTER_BACKEND_KEY", "")
    from router.cli.options import key_in  # gRPC comes with it

    return key_in(file)


backend_key = click.option(
    "--key-file",
    "backend_key",
    type=File(),
    callback=_key,
    help="File with the engine's key [default: the key in BUDGET_ROUTER_BACKEND_KEY].",
)
"""The key itself is no option: every user of the machine sees the arguments of a process."""


def require(needed: Mapping[str, str]) -> None:
    """Refuse options of the running command that would be ignored, since others are not given.

    Args:
        needed: by name of a parameter, the parameter without which it has no effect. The environment may set both.

    Raises:
        UsageError: such an option is on the command line.
    """
    context = click.get_current_context()
    options = {option.name: option.opts[0] for option in context.command.params}
    for name, other in needed.items():
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if typed and context.params[other] in (None, ()):
            raise click.UsageError(f"{options[name]} needs {options[other]}")


_PRICES = (
    click.option("--price-in", type=Number(0), help="Price of a million prompt tokens, in any currency."),
    click.option("--price-out", type=Number(0), help="Price of a million thinking and answer tokens."),
)
_RATES = (
    *_PRICES,
    click.option("--first-token", type=Number(0), envvar="BUDGET_ROUTER_FIRST_TOKEN_SECONDS",
                 help="The engine's seconds to its first token, as in the settings of the service."),
    click.option("--per-token", type=Number(0), envvar="BUDGET_ROUTER_TOKEN_SECONDS",
                 help="The engine's seconds per token, as in the settings of the service."),
)  # fmt: skip


def rates(command: Callable[..., None]) -> Callable[..., None]:
    """Options with which a report states savings in time and money, too."""
    for option in reversed(_RATES):
        command = option(command)
    return command


def prices(command: Callable[..., None]) -> Callable[..., None]:
    """The options among these that are about money."""
    for option in reversed(_PRICES):
        command = option(command)
    return command


def save_plot(figure: "Figure", path: Path) -> None:
    """Write a figure as SVG, for the option --plot. Raises BadParameter."""
    try:
        figure.savefig(path, format="svg", metadata={"Date": None})  # without the date, equal figures give equal files
    except OSError as error:
        raise click.BadParameter(str(error), param_hint="--plot") from error


def warn(warnings: list[str]) -> None:
    """Print warnings at the end, where they are seen; on standard error, which no script parses."""
    for warning in warnings:
        click.secho(f"warning: {warning}", fg="red", err=True)
