"""JSON in requests that goes on to the engine, checked for its size and shape; the engine decides what it means."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from router.errors import InvalidRequest

MAX_SCHEMA_BYTES = 1 << 16
"""Most bytes of a schema. It is read and written as JSON, which takes many times as long as text, and nobody else is
served meanwhile."""

MAX_SCHEMA_LEVELS = 100
"""Most levels of objects and lists of a schema: writing JSON takes a frame of the stack for each."""


def schema(given: str | Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """The schema that a field holds, as JSON or parsed. Raises InvalidRequest."""
    parsed = _parsed(given, field) if isinstance(given, str) else given
    if not isinstance(parsed, dict):
        raise InvalidRequest(field, "must be a JSON object")
    require_bounded(parsed, field, counted=isinstance(given, str))
    return parsed


def require_bounded(value: object, field: str, most: int = MAX_SCHEMA_BYTES, *, counted: bool = False) -> int:
    """Refuse parsed JSON that is too deep or, unless its bytes are `counted`, too long. Raises InvalidRequest.

    Returns:
        The bytes that it takes; 0 where they were counted before.
    """
    if not _is_shallow(value):
        raise InvalidRequest(field, f"at most {MAX_SCHEMA_LEVELS} levels of objects and lists")
    size = 0 if counted else len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    if size > most:
        raise InvalidRequest(field, f"at most {most} bytes, has {size}")
    return size


def _parsed(text: str, field: str) -> object:
    if (size := len(text.encode())) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(field, f"at most {MAX_SCHEMA_BYTES} bytes, has {size}")
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):  # nested too deeply for the parser
        return None


def _finite(text: str) -> float:
    """A number; NaN and what is too large for one are no JSON, and would go on as null."""
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _is_shallow(value: object) -> bool:
    """Whether parsed JSON has at most MAX_SCHEMA_LEVELS levels."""
    level = [value]
    for _ in range(MAX_SCHEMA_LEVELS + 1):
        level = [within for one in level for within in _within(one)]
    return not level


def _within(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
