"""Does an engine serve a model? Its list of models says so."""

import re

from router.backends.http import EngineClient, MappedErrors, expect_type
from router.errors import BackendError

SHOWN = 8
"""Names of models that an error lists."""


async def check_serves(engine: EngineClient, model: str) -> None:
    """Returns where the engine lists the model. Raises BackendError, which says what it serves instead."""
    with MappedErrors():
        listed = (await engine.ask("/v1/models"))["data"]
        names: list[str] = [expect_type(str, entry["id"]) or "" for entry in listed]
    if model not in names:
        raise BackendError(f"backend: it serves {_shown(names)}; not {model}")


def _shown(names: list[str]) -> str:
    """A few names, without what would spoil a log."""
    some = [re.sub(r"[^ -~]", "?", name[:80]) for name in names[:SHOWN]]
    return ", ".join([*some, *(["..."] if len(names) > SHOWN else [])]) or "no model yet"
