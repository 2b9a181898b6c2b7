"""The commands of `budget-router`, put together."""

from importlib import import_module

import click

from router.cli.strict import Group

MODULES = {
    "decide": "router.cli.calls",
    "doctor": "router.cli.doctor",
    "explain": "router.cli.calls",
    "generate": "router.cli.calls",
    "health": "router.cli.calls",
    "label": "router.cli.label",
    "learn": "router.cli.learning",
    "new-key": "router.cli.service",
    "report": "router.cli.calls",
    "serve": "router.cli.service",
    "status": "router.cli.learning",
    "work": "router.cli.service",
}
"""The module of each command, imported when it is asked for: a service needs nothing that draws tables."""

RECORDED = ("outcomes", "plan")
"""Commands of budget-train about recorded traffic, which operators want here, too."""


class _Commands(Group):
    """The commands of MODULES and of RECORDED."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*MODULES, *RECORDED])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in RECORDED:
            train: click.Group = import_module("training.cli").cli  # by name: serving never imports training
            return train.get_command(ctx, cmd_name)
        if cmd_name not in MODULES:
            return None
        command: click.Command = getattr(import_module(MODULES[cmd_name]), cmd_name.replace("-", "_"))
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="budget-router")
def cli() -> None:
    """Choose a reasoning budget for each prompt: as few thinking tokens as the loss you accept on average allows.

    Start with `budget-router serve`, then `budget-router generate "..."` in another terminal.
    Every setting is an environment variable BUDGET_ROUTER_*; see docs/settings.md.
    """
