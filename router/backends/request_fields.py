"""The fields of a request that not every engine takes, in every way to hold a budget.

The table of who takes what is in `dialects`. What is not taken is refused by its name, before anything is sent.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

from router.domain import GenerationRequest, Prompt
from router.errors import InvalidRequest

Use = Callable[[GenerationRequest], str | None]
"""Where a request uses a field, as a path in the request; None where it does not."""


def _sampled(name: str, request: GenerationRequest) -> str | None:
    value = getattr(request.sampling, name)
    return None if value is None or value is False or value == () else f"sampling.{name}"  # 0 is a value, too


def _form(schema: bool, request: GenerationRequest) -> str | None:
    form = request.sampling.response_format
    return "response_format" if form is not None and (form.schema is not None) == schema else None


def _form_with_tools(request: GenerationRequest) -> str | None:
    return "response_format" if request.sampling.response_format is not None and request.tools.offered else None


def _reasoning(prompt: Prompt) -> str | None:
    turns = prompt.before.messages
    return next((f"messages[{i}].reasoning" for i, turn in enumerate(turns) if turn.reasoning), None)


def _begun(request: GenerationRequest, name: str) -> str | None:
    """A field of the last turn, where that is an answer that the model goes on with, and is about this field."""
    begun = request.prompt.begun
    if begun is None or begun.tool_calls or bool(begun.reasoning) != (name == "reasoning"):
        return None
    return _last(request, name)


def _last(request: GenerationRequest, name: str) -> str:
    return f"messages[{len(request.prompt.messages) - 1}].{name}"


SAMPLED = (
    "temperature", "seed", "top_p", "top_k", "min_p", "stop", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logprobs",
)  # fmt: skip
JSON_OBJECT, JSON_SCHEMA, FORM_WITH_TOOLS = "json_object", "json_schema", "a JSON form with tools"
FLOOR, TOOLS, IMAGES = "min_thinking_tokens", "tools", "images"
PASSED = "a field of the engine's own"
REASONING = "an earlier thought"
BEGUN, BEGUN_BARE = "an answer that has begun", "one that has begun, without thinking"
GIVEN = "one that has begun behind its thought"

FIELDS: Mapping[str, Use] = {
    **{name: partial(_sampled, name) for name in SAMPLED},
    JSON_OBJECT: partial(_form, False),
    JSON_SCHEMA: partial(_form, True),
    FORM_WITH_TOOLS: _form_with_tools,
    FLOOR: lambda request: "options.min_thinking_tokens" if request.min_thinking_tokens > 0 else None,
    TOOLS: lambda request: "tools" if request.tools.offered else None,
    IMAGES: lambda request: request.prompt.images,
    PASSED: lambda request: next(iter(request.sampling.passed), None),
    REASONING: lambda request: _reasoning(request.prompt),
    BEGUN: lambda request: _begun(request, "content") if request.budget.tokens != 0 else None,
    BEGUN_BARE: lambda request: _begun(request, "content") if request.budget.tokens == 0 else None,
    GIVEN: lambda request: _begun(request, "reasoning"),
}
"""The fields by the names of the table."""

ENGINES_NAMES = {"repeat_penalty": "repetition_penalty", "top_logprobs": "logprobs", "tool_choice": "tools"}
"""Names that engines have for fields of another name here."""

Taken = frozenset[str]
"""Names of fields that an engine takes, in one way to hold a budget."""

ALL: Taken = frozenset(FIELDS)


def require_possible(request: GenerationRequest) -> None:
    """Raise InvalidRequest where a request asks for what nobody can do with an answer that has begun."""
    begun = request.prompt.begun
    if begun is None:
        return
    if begun.tool_calls:
        raise InvalidRequest(_last(request, "tool_calls"), "no tool has answered, and a call is not gone on with")
    if len(request.prompt.messages) == 1:
        raise InvalidRequest("messages", "an answer that has begun needs a message before it")
    if begun.reasoning and request.min_thinking_tokens:
        raise InvalidRequest("options.min_thinking_tokens", "the last message has its thought: nothing more is thought")
    if request.sampling.response_format is not None:
        raise InvalidRequest("response_format", "it would begin anew behind the beginning that the last message gives")


def untaken(request: GenerationRequest, taken: Taken) -> str | None:
    """The path of the first field that a request uses and that is not taken; None where all are."""
    paths = (use(request) for name, use in FIELDS.items() if name not in taken)
    return next(filter(None, paths), None)


def path_of(named: str, request: GenerationRequest) -> str | None:
    """The path of a field that an engine names in the words of its API; None where the request does not use it."""
    name = re.split(r"[.\[]", named)[0]
    name = ENGINES_NAMES.get(name, name)
    used = {use(request) for use in FIELDS.values()}
    return next((path for path in (f"sampling.{name}", name) if path in used), None)


def check(request: GenerationRequest, taken: Taken, who: str) -> None:
    """Raise InvalidRequest, which names the first field that is not taken, and `who` does not take it."""
    require_possible(request)
    if (path := untaken(request, taken)) is not None:
        raise InvalidRequest(path, f"{who} cannot do this")
