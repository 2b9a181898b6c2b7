"""The budget of a decision as fields of the request that goes on to the engine; the rest of its body stays the same."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from router.domain import Decision, DecisionSource
from router.errors import InvalidRequest

if TYPE_CHECKING:  # with the client of HTTP, which costs the start .4 s
    from router.backends.dialects import Dialect

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"

WISHES = "budget_router"
"""The field of a body that is for the router alone."""

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BudgetFields:
    """Writes the budget in the words of one engine, which holds it by itself.

    Args:
        cue: said at the end of a thought that is cut; None = nothing.
    """

    model: str
    dialect: "Dialect"
    cue: str | None

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths whose requests have a budget here. vLLM, SGLang and llama.cpp take none in the Responses API."""
        return (CHAT,) if self.dialect.completions is not None else (CHAT, RESPONSES)

    def of(self, decision: Decision, path: str) -> Body:
        """The fields; none where the engine's own default was decided. Raises InvalidRequest."""
        if decision.source is DecisionSource.ENGINE_DEFAULT and decision.rung.tokens is None:
            return {}
        budget = self.dialect.budget(decision.rung)
        if path == RESPONSES:
            return {"reasoning": {"effort": budget["reasoning_effort"]}} if budget else {}
        return {**budget, **self.dialect.closing(decision.rung, self.cue)}


def written(body: bytes, parsed: Body, fields: Body, model: str) -> bytes:
    """The body with fields added, the model named as the engine calls it, and without what is for the router alone.

    Raises:
        InvalidRequest: one of the fields is there already, and cannot be joined with what is to be written.
    """
    if parsed.get("model") == model and WISHES not in parsed and parsed.keys().isdisjoint(fields):
        return _appended(body, fields)
    # Not by orjson, which makes floats of large integers: what is not the budget passes unchanged.
    whole = {**json.loads(body), **{name: _joined(parsed, name, value) for name, value in fields.items()}}
    whole.pop(WISHES, None)
    return json.dumps({**whole, "model": model}, ensure_ascii=False, separators=(",", ":")).encode()


def _appended(body: bytes, fields: Body) -> bytes:
    """The object with fields behind its own, which are copied as bytes, however long they are."""
    if not fields:
        return body
    return body.rstrip()[:-1] + b"," + orjson.dumps(fields)[1:]


def _joined(parsed: Body, name: str, value: Any) -> Any:
    """Variables of a template, and an object of options, keep what is not about the budget."""
    given = parsed.get(name)
    if not isinstance(value, Mapping) or given is None:
        return value
    if not isinstance(given, Mapping):
        raise InvalidRequest(name, "is not an object")
    return {**given, **value}
