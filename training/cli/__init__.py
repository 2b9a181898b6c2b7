"""The command `budget-train`."""

from importlib import import_module
from typing import Any

import click

from router.cli.strict import Group
from router.extras import needs
from training.cli.collect import collect
from training.cli.fitting import evaluate, fit, validate
from training.cli.labels import certify, label
from training.cli.learn import learn
from training.cli.registries import promote, retrain, rollback


class _Recorded(click.Command):
    """A command about recorded traffic, imported when it runs: help for the others needs no Polars."""

    def __init__(self, name: str, module: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self._module = module

    @needs("train")
    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the real command, which click runs in place of this one."""
        command: click.Command = getattr(import_module(self._module), str(self.name))
        return command.make_context(info_name, args, parent, **extra)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Train the difficulty classifier on outcomes: collect -> validate -> fit -> evaluate."""


# `budget-router` has these as well.
cli.add_command(_Recorded("plan", "training.plan", "Replay recorded traffic under targets and deadlines."))
cli.add_command(_Recorded("replay", "training.stopping.command", "Replay rules that stop within the thought."))
cli.add_command(_Recorded("wrap", "training.wrapping.command", "Add conversations to outcomes of bare prompts."))
cli.add_command(_Recorded("outcomes", "training.data.export_log", "Read the outcome log."))
for command in (collect, validate, fit, evaluate, certify, label, learn, retrain, promote, rollback):
    cli.add_command(command)
