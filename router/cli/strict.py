"""What the commands ask of their arguments, beyond what click checks, and the option that most of them have.

Refused are an option given twice, of which click would silently use the last; NaN, which passes every range; a FIFO,
which would be waited for; and a file to write below another file.
"""

import math
import sys
from pathlib import Path
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from router.errors import WrongUsage


class Command(click.Command):
    """A command that refuses an option given twice, unless it is one of several."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does. Raises UsageError where an option is repeated."""
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        options = [one for one in given if isinstance(one, click.Option) and not (one.multiple or one.is_flag)]
        for option in options:
            if options.count(option) > 1:
                raise click.UsageError(f"{option.opts[0]} is given twice", ctx)
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


class Number(click.FloatRange):
    """A finite number within a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Raises BadParameter; the range alone lets NaN pass."""
        given = float(super().convert(value, param, ctx))
        return given if math.isfinite(given) else self.fail(f"{value} is not finite", param, ctx)


class File(click.Path):
    """A file that can be read."""

    name = "file"

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Its path. Raises BadParameter."""
        path = Path(str(super().convert(value, param, ctx)))
        return path if path.is_file() else self.fail(f"File {str(path)!r} is a pipe or a device.", param, ctx)


class FileOrUrl(File):
    """A file that can be read, or a URL."""

    name = "file or url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text as it was given. Raises BadParameter."""
        return value if "://" in value else str(super().convert(value, param, ctx))


class NewFile(click.Path):
    """A file to write, in a folder that exists or can be made."""

    name = "file"

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Its path. Raises BadParameter."""
        path = Path(str(super().convert(value, param, ctx)))
        if path.exists() and not path.is_file():
            self.fail(f"File {str(path)!r} is a pipe or a device.", param, ctx)
        above = next(folder for folder in path.absolute().parents if folder.exists())
        return path if above.is_dir() else self.fail(f"{str(above)!r} is not a folder.", param, ctx)


FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)
"""A folder to read from; and one that need not be there yet."""

json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def invoked(command: click.Command) -> int:
    """Run a command on this process's arguments; returns its exit code.

    Raises:
        WrongUsage: an argument is wrong.
        KeyboardInterrupt: Ctrl-C has ended it.
    """
    try:
        code = command.main(standalone_mode=False)
        if sys.stdout is not None:  # as it is where a shell has closed it
            sys.stdout.flush()  # or Python would find out while it ends that nobody reads on
    except NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except click.ClickException as error:
        raise WrongUsage(_line(error)) from error
    return code or 0


def _line(error: click.ClickException) -> str:
    """A click error in one line, with the command that explains itself."""
    said = " ".join(error.format_message().split()).rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return said if context is None else f"{said}; see `{context.command_path} --help`"
