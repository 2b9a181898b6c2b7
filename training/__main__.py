"""The entry point of `budget-train`."""

from typing import TYPE_CHECKING, NoReturn

from router.cli.ending import run

if TYPE_CHECKING:
    import click


def main() -> NoReturn:
    """Run the command; `run` has the exit codes."""

    def command() -> "click.Command":
        from training.cli import cli

        return cli

    run("budget-train", "train", command)


if __name__ == "__main__":
    main()
