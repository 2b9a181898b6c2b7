"""Options that several commands share."""

from collections.abc import Callable

import click

from router.cli.strict import File, FileOrUrl, Number

ENGINES = click.Choice(["vllm", "sglang", "llama_cpp", "openai_effort"])
"""Kinds of engines; their table is not imported for a help text."""

outcomes_file = click.option("--outcomes", type=File(), required=True, help="Parquet file of the outcome schema.")
outcome_log = click.option("--log", type=FileOrUrl(), default="var/outcomes.sqlite", show_default=True,
                           help="File or Redis URL of the outcome log; the service may be running.")  # fmt: skip
json_output = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
backend_key = click.option("--backend-key", envvar="BUDGET_ROUTER_BACKEND_KEY", default="",
                           help="Bearer token for the engine; better in BUDGET_ROUTER_BACKEND_KEY.")  # fmt: skip


_RATES = (
    click.option("--price-in", type=Number(0), help="Price of a million prompt tokens, in any currency."),
    click.option("--price-out", type=Number(0), help="Price of a million thinking and answer tokens."),
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
