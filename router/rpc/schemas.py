"""JSON schemas in requests, checked for their size and shape; the engine decides whether it can follow one."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from router.errors import InvalidRequest

MAX_SCHEMA_BYTES = 1 << 16
"""Most bytes of a schema. It is read and written as JSON, which takes many times as long as text, and nobody else is
served meanwhile."""

MAX_SCHEMA_LEVELS = 100
"""Most levels of objects and lists of a schema: writing JSON takes a frame of the stack for each."""


def schema(text: str, field: str) -> Mapping[str, Any]:
    """The schema that a field holds. Raises InvalidRequest."""
    if (size := len(text.encode())) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(field, f"at most {MAX_SCHEMA_BYTES} bytes, has {size}")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):  # nested too deeply for the parser
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidRequest(field, "must be a JSON object")
    if not _is_shallow(parsed):
        raise InvalidRequest(field, f"at most {MAX_SCHEMA_LEVELS} levels of objects and lists")
    return parsed


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
