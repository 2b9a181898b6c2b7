"""The entry point of `budget-train`, and its exit codes."""

import sys
from typing import NoReturn

from router.errors import MissingExtra, RouterError
from router.extras import needs


def main() -> NoReturn:
    """Run the command; exit code 2 if data, bundles or backends are wrong, 1 if an extra is missing."""
    try:
        with needs("train"):
            from training.cli import cli

            cli()
    except RouterError as error:
        print(f"budget-train: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, MissingExtra) else 2)
    sys.exit(0)


if __name__ == "__main__":
    main()
