"""The list of models."""

from collections.abc import Sequence
from typing import Any

from router.openai.requests import AUTO


def models(served: Sequence[str]) -> dict[str, Any]:
    """The models that a request may name, `auto` first."""
    return {"object": "list", "data": [model(name) for name in (AUTO, *served)]}


def model(name: str) -> dict[str, Any]:
    """One of the models."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "budget-router"}
