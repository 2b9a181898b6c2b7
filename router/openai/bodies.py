"""Bodies of requests as bytes -> parsed JSON, at a bounded cost."""

from typing import Any

import orjson

from router.errors import InvalidRequest

MAX_VALUES = 100_000
"""Most values of a body: a short one takes two bytes, and thirty times as much memory once it is parsed."""

UNCOUNTED_BYTES = 1 << 18
"""Size up to which a body is parsed whatever it holds: in milliseconds, into a few MB."""

SEPARATORS = b",:[{"


def parsed(body: bytes) -> Any:
    """The JSON of a body. Raises InvalidRequest."""
    if len(body) > UNCOUNTED_BYTES:
        _require_few_values(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:  # also where it is nested too deeply, or is not UTF-8
        raise InvalidRequest("body", f"is not JSON: {error}") from None


def _require_few_values(body: bytes) -> None:
    """Count what separates values outside of texts, without a look at single bytes. Raises InvalidRequest."""
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') <= 4 * MAX_VALUES:  # a name, and a text
        outside = b"".join(bare.split(b'"')[::2])
        if sum(outside.count(mark) for mark in SEPARATORS) <= 2 * MAX_VALUES:
            return
    raise InvalidRequest("body", f"at most {MAX_VALUES:,} values")
