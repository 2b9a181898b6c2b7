"""The command `budget-router`: its entry point and its exit codes."""

import os
import sys
from typing import NoReturn

from router.errors import DrainError, MissingExtra, RouterError
from router.extras import needs

BAD_INPUT = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE")


def main() -> NoReturn:
    """Run the command.

    Exit codes: 2 for wrong input, or a service that cannot start; 1 for a call that failed, a missing extra, or a
    service that lost something when it ended.
    """
    # gRPC's own lines on stderr would stand beside our errors; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with needs("serve"):
            from router.cli.commands import cli

            cli()
    except RouterError as error:
        print(f"budget-router: {error}", file=sys.stderr)
        sys.exit(_exit_code(error))
    sys.exit(0)


def _exit_code(error: RouterError) -> int:
    from router.client import ClientError

    if isinstance(error, ClientError):
        return 2 if error.code in BAD_INPUT else 1
    return 1 if isinstance(error, DrainError | MissingExtra) else 2
