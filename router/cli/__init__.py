"""The command `budget-router`: its entry point."""

import os
from typing import TYPE_CHECKING, NoReturn

from router.cli.ending import run

if TYPE_CHECKING:
    import click


def main() -> NoReturn:
    """Run the command; `run` has the exit codes."""
    # gRPC's own lines on stderr would stand beside our errors; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")

    def command() -> "click.Command":
        from router.cli.commands import cli

        return cli

    run("budget-router", "serve", command)
