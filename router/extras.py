"""Optional parts of the package: which extra brings what they need, and how this copy of the package gets it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.errors import MissingExtra

OURS = ("router", "training")
_ROOT = Path(__file__).parents[1]


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Inside, or in a function that this decorates, modules of `extra` are needed.

    Raises:
        MissingExtra: one of them is not installed; the message says what to type.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None:  # the message says already what is missing
            raise MissingExtra(str(error)) from error
        if error.name.partition(".")[0] in OURS:
            raise
        raise MissingExtra(f"{error.name} is not installed; {_remedy(extra)}") from error


def _remedy(extra: str) -> str:
    if (_ROOT / "Makefile").is_file():
        return f"in {_ROOT} run `make setup`, or `pip install -e '.[{extra}]'`"
    return f"install budget-router again, with its extra `{extra}`"
