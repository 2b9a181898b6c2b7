"""Names and ids in requests, which are safe in logs and headers."""

from unicodedata import category

from router.errors import InvalidRequest

MAX_NAME = 128
"""Most bytes of an id or a name."""


def checked_name(value: str, field: str) -> str:
    """A checked id or name. Raises InvalidRequest."""
    if not value:
        return value
    if len(value) > MAX_NAME or len(value.encode()) > MAX_NAME:
        raise InvalidRequest(field, f"at most {MAX_NAME} bytes")
    # A line break in a name could forge a log line or a header.
    if any(category(character) == "Cc" for character in value):
        raise InvalidRequest(field, "must not hold control characters")
    return value
