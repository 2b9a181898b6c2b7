"""JSON files of bundles, read strictly: unique keys, finite numbers, nothing of another type."""

import json
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from router.errors import ArtifactError

T = TypeVar("T")


def parsed(adapter: TypeAdapter[T], data: bytes, path: Path) -> T:
    """Data of a JSON file, whose keys must be unique: parsers differ in which of two values they take.

    Raises:
        ArtifactError: the data does not fit; the message names the file and the field.
    """
    try:
        json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
        # Strict: "0.1" is no number, and true is no 1.
        return adapter.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise ArtifactError(_line(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}")) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(_line(f"{path}: {error}")) from error


def _unique(pairs: list[tuple[str, Any]]) -> None:
    names = set()
    for name, _ in pairs:
        if name in names:
            raise ValueError(f"{name[:40]!r} occurs twice")
        names.add(name)


def _finite(number: str) -> None:
    if not isfinite(float(number)):
        raise ValueError(f"{number[:40]} is no finite number")


def _line(message: str) -> str:
    """A message in one line, whatever a file put into it."""
    return " ".join(message.split())[:400]
