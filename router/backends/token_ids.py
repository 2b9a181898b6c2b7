"""Token ids and counts as engines send them: checked, since engines are not trusted."""

from contextlib import suppress
from typing import Any

from router.backends.http import expect_type

LARGEST_COUNT = 1 << 24
"""The largest count that is accepted: no model reads or writes so many tokens at once. Sums of counts fit the wire."""

LARGEST_ID = (1 << 31) - 1
"""The largest token id that is accepted."""


def valid_count(value: Any) -> int | None:
    """A count of tokens; None where it is absent, or none that an engine can mean. Raises TypeError if no number."""
    if type(value) is int:
        return value if 0 <= value <= LARGEST_COUNT else None
    if type(value) is not float:  # parsers make floats of integers beyond 64 bits
        expect_type(int, value)
    return None


def token_ids(value: Any) -> list[int]:
    """A list of token ids. Raises TypeError."""
    # Without a loop in Python: one event may hold half a million.
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:
        raise TypeError("token ids expected")
    if value and not 0 <= min(value) <= max(value) <= LARGEST_ID:
        raise TypeError("token ids expected")
    return value


def find_ids(ids: list[int], part: list[int], first: int = 0) -> int | None:
    """Where a part, of at least one id, begins in `ids` from `first` on; None = nowhere."""
    at = first - 1
    with suppress(ValueError):
        while True:
            at = ids.index(part[0], at + 1)
            if ids[at : at + len(part)] == part:
                return at
    return None
