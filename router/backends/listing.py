"""The models that an engine lists: is one served, and what does the engine call itself?"""

import re
from dataclasses import dataclass

from router.backends.failures import MappedErrors
from router.backends.http import EngineClient, expect_type
from router.backends.statuses import MODELS
from router.errors import BackendError, BackendMisconfigured

SHOWN = 8
"""Names of models that an error lists."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model in an engine's list; `owner` is the word of the engine for itself, or whatever a host writes there."""

    name: str
    owner: str


async def listed(engine: EngineClient) -> list[ListedModel]:
    """The models that the engine lists. Raises BackendError."""
    with MappedErrors():
        entries = (await engine.ask(MODELS))["data"]
        return [
            ListedModel(expect_type(str, entry["id"]) or "", expect_type(str, entry.get("owned_by")) or "")
            for entry in entries
        ]


async def check_serves(engine: EngineClient, model: str) -> list[ListedModel]:
    """The engine's list, where it holds the model.

    Raises:
        BackendMisconfigured: it serves others, which the message names.
        BackendError: it serves none yet, or gives no list.
    """
    found = await listed(engine)
    names = [one.name for one in found]
    if model not in names:
        wrong = f"backend: it serves {shown(names)}; not {model}"
        raise BackendMisconfigured(wrong, "model") if names else BackendError(wrong)
    return found


def shown(names: list[str]) -> str:
    """A few names, without what would spoil a log."""
    some = [re.sub(r"[^ -~]", "?", name[:80]) for name in names[:SHOWN]]
    return ", ".join([*some, *(["..."] if len(names) > SHOWN else [])]) or "no model yet"
