"""The list of models."""

from collections.abc import Sequence
from typing import Any

from router.openai.requests import AUTO


def models(served: Sequence[str]) -> dict[str, Any]:
    """The models that a request may name, `auto` first."""
    entries = [{"id": name, "object": "model", "created": 0, "owned_by": "budget-router"} for name in (AUTO, *served)]
    return {"object": "list", "data": entries}
