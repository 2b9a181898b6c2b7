"""The commands of `budget-router`, put together."""

from importlib import import_module

import click

from router.cli import calls, label, learning, service
from router.cli.doctor import doctor
from router.cli.strict import Group

RECORDED = ("outcomes", "plan")
"""Commands of budget-train about recorded traffic, which operators want here, too."""


class _Commands(Group):
    """The commands of this package, and those of RECORDED, which are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *RECORDED])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in RECORDED:
            return super().get_command(ctx, cmd_name)
        train: click.Group = import_module("training.cli").cli  # by name: serving never imports training
        return train.get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="budget-router")
def cli() -> None:
    """Choose a reasoning budget for each prompt: as few thinking tokens as the loss you accept on average allows.

    Start with `budget-router serve`, then `budget-router generate "..."` in another terminal.
    Every setting is an environment variable BUDGET_ROUTER_*; see docs/settings.md.
    """


for _command in (*service.COMMANDS, doctor, *calls.COMMANDS, *learning.COMMANDS, *label.COMMANDS):
    cli.add_command(_command)
