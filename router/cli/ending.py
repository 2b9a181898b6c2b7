"""How the commands end: one line for an error, and exit codes."""

import errno
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from router.errors import (
    BackendMisconfigured,
    DependencyError,
    DrainError,
    MissingExtra,
    OutcomeFileError,
    RouterError,
    WorkerError,
)
from router.extras import needs

if TYPE_CHECKING:
    import click

BAD_INPUT = ("INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "UNAUTHENTICATED", "PERMISSION_DENIED")
"""Calls that would fail again however often they are tried, as they are wrong. FAILED_PRECONDITION is none of them: the
call was right, and no rung meets its target."""

OUTSIDE = (DependencyError, DrainError, MissingExtra)
"""Errors that no change of the command would mend, but for those in UNUSABLE."""

UNUSABLE = (BackendMisconfigured, OutcomeFileError)
"""Errors about what a setting or an argument names."""

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C has ended, as shells have it."""


def run(name: str, extra: str, command: "Callable[[], click.Command]") -> NoReturn:
    """Import a command, run it on this process's arguments, and exit; an error is one line.

    Exit codes: 2 for wrong input, which includes settings and files; 1 for a call that failed, a target that is not
    met, an engine, a Redis or a cluster that is down, a missing extra, output that nobody reads, or a service that lost
    something when it ended; 130 for Ctrl-C.

    Args:
        extra: the part of the package that the command needs.
        command: imports the command.
    """
    try:
        with needs(extra):
            from router.cli.strict import invoked

            sys.exit(invoked(command()))
    except RouterError as error:
        _end(name, str(error), _exit_code(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:  # a file that an argument names, or one beside it
        if error.errno == errno.EPIPE:
            _let_go_of_output()
            sys.exit(1)
        place = "" if error.filename is None else f"{error.filename}: "
        _end(name, f"{place}{error.strerror or error}", 2)


def _exit_code(error: RouterError) -> int:
    from router.client import ClientError

    if isinstance(error, ClientError):
        return 2 if error.code in BAD_INPUT else 1
    if isinstance(error, WorkerError):
        return error.code
    return 1 if isinstance(error, OUTSIDE) and not isinstance(error, UNUSABLE) else 2


def _end(name: str, message: str, code: int) -> NoReturn:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _let_go_of_output() -> None:
    """Nobody reads on; what is left must not fail once more while Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
