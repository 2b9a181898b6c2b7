"""Fields of a JSON object, each read once and by its type; what nobody has read is left over."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, TypeVar

from router.errors import InvalidRequest

T = TypeVar("T")


class Fields:
    """The fields of an object, by name. One that is null counts as absent, as clients send those they do not use.

    Args:
        at: what stands before the names in errors, such as "budget_router.".

    Raises:
        InvalidRequest: it is no object.
    """

    def __init__(self, given: object, at: str = "") -> None:
        if not is_object(given):
            raise InvalidRequest(at.rstrip(".") or "body", "must be an object")
        self._left = {name: value for name, value in given.items() if value is not None}
        self._at = at

    @property
    def left(self) -> Mapping[str, Any]:
        """The fields that nobody has read."""
        return self._left

    def require_none_left(self) -> None:
        """Refuse fields that nobody has read. Raises InvalidRequest."""
        for name in self._left:
            raise InvalidRequest(f"{self._at}{name}", "is no known field")

    def take(self, name: str) -> Any:
        """The value of a field, whatever it is; None where it is absent."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        """A text. Raises InvalidRequest."""
        return self._typed(name, str, "a text")

    def flag(self, name: str) -> bool | None:
        """True or false. Raises InvalidRequest."""
        return self._typed(name, bool, "true or false")

    def within(self, name: str) -> "Fields | None":
        """The fields of an object. Raises InvalidRequest."""
        value = self.take(name)
        return None if value is None else Fields(value, f"{self._at}{name}.")

    def many(self, name: str) -> Sequence[Any] | None:
        """The entries of a list. Raises InvalidRequest."""
        return self._typed(name, list, "a list")

    def number(self, name: str) -> float | None:
        """A finite number. Raises InvalidRequest."""
        value = self.take(name)
        if value is None:
            return None
        # JSON writes 1.0 and 1 alike, and True is an int to Python. No float holds 10**400.
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidRequest(f"{self._at}{name}", "must be a number")
        return value

    def integer(self, name: str, most: int = 2**31 - 1) -> int | None:
        """A whole number of at most `most`, either way. Raises InvalidRequest."""
        value = self.number(name)
        if value is None:
            return None
        if value != int(value) or abs(value) > most:
            raise InvalidRequest(f"{self._at}{name}", f"must be a whole number of at most {most}")
        return int(value)

    def _typed(self, name: str, kind: type[T], what: str) -> T | None:
        value = self.take(name)
        if value is not None and not isinstance(value, kind):
            raise InvalidRequest(f"{self._at}{name}", f"must be {what}")
        return value


def is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether parsed JSON is an object."""
    return isinstance(value, dict)


def present(**values: Any) -> dict[str, Any]:
    """The values that are not None, by name."""
    return {name: value for name, value in values.items() if value is not None}
