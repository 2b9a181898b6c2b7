"""Requests of the Responses API, for text and reasoning -> chat requests. What is not supported is refused by name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from router.admission.identity import Call
from router.errors import FieldError, InvalidRequest
from router.openai.fields import Fields, present
from router.openai.requests import ChatRequest, chat_request
from router.requests.limits import Limits

E = TypeVar("E", bound=FieldError)

UNSUPPORTED = ("tools", "include", "previous_response_id", "conversation", "prompt", "background", "store")
"""Fields that ask for what is not there, unless they are empty or false: no tools, and nothing is stored."""

MEANINGLESS = ("tool_choice", "parallel_tool_calls", "max_tool_calls")
"""Fields that clients send without tools, too, where they mean nothing."""

TEXTS = ("input_text", "output_text", "text")
RENAMED = {
    "sampling.max_answer_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "sampling.top_logprobs": "top_logprobs",
    "options.reasoning_effort": "reasoning.effort",
    "messages": "input",
    "response_format": "text.format",
}


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """A checked request of the Responses API.

    Attributes:
        chat: the same as a chat request.
        echoed: fields that the response repeats.
    """

    chat: ChatRequest
    echoed: Mapping[str, Any]
    _places: Sequence[str]

    def renamed(self, error: E) -> E:
        """An error with its field named as in this API."""
        return _renamed(error, self._places)


@dataclass(slots=True)
class _Turns:
    """The messages of the input so far, and where each one stands in it."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    thought: str = ""

    def add(self, place: str, **message: Any) -> None:
        self.messages.append(message)
        self.places.append(place)


def responses_request(body: object, headers: Mapping[str, str], limits: Limits, call: Call) -> ResponsesRequest:
    """A request from its parsed JSON, checked. Raises InvalidRequest, PermissionDenied."""
    fields = Fields(body)
    _refuse_unsupported(fields)
    turns = _Turns()
    instructions = fields.text("instructions")
    if instructions:
        turns.add("instructions", role="system", content=instructions)
    _read_input(fields.take("input"), turns, limits)
    longest, effort, form = fields.integer("max_output_tokens"), _effort(fields), _form(fields)
    top = fields.integer("top_logprobs")
    drawn = present(temperature=fields.number("temperature"), top_p=fields.number("top_p"))
    chat = present(
        messages=turns.messages,
        max_completion_tokens=longest,
        reasoning_effort=effort,
        response_format=form,
        logprobs=True if top else None,
        top_logprobs=top,
    )
    try:
        wanted = chat_request({**fields.left, **drawn, **chat}, headers, limits, call)
    except FieldError as error:
        raise _renamed(error, turns.places) from None
    echoed = {
        "instructions": instructions,
        "max_output_tokens": longest,
        "reasoning": {"effort": effort, "summary": None},
        "temperature": drawn.get("temperature"),
        "top_p": drawn.get("top_p"),
    }
    return ResponsesRequest(wanted, echoed, turns.places)


def _refuse_unsupported(fields: Fields) -> None:
    for name in UNSUPPORTED:
        if fields.take(name) not in (None, False, "", [], {}):
            raise InvalidRequest(name, "is not supported here")
    if fields.text("truncation") not in (None, "disabled"):
        raise InvalidRequest("truncation", "must be disabled: nothing is cut off")
    for name in MEANINGLESS:
        fields.take(name)


def _effort(fields: Fields) -> str | None:
    reasoning = fields.within("reasoning")
    if reasoning is None:
        return None
    effort = reasoning.text("effort")
    for name in ("summary", "generate_summary"):
        if reasoning.text(name) is not None:
            raise InvalidRequest(f"reasoning.{name}", "is not supported: the thought itself is in the response")
    reasoning.require_none_left()
    return effort


def _form(fields: Fields) -> dict[str, Any] | None:
    text = fields.within("text")
    form = None if text is None else text.within("format")
    if text is not None:
        text.require_none_left()
    if form is None:
        return None
    kind = form.text("type")
    if kind != "json_schema":
        form.require_none_left()
        return {"type": kind}
    return {"type": kind, "json_schema": dict(form.left)}


def _read_input(given: Any, turns: _Turns, limits: Limits) -> None:
    if isinstance(given, str):
        turns.add("input", role="user", content=given)
        return
    if not isinstance(given, list):
        raise InvalidRequest("input", "must be a text, or a list of items")
    if len(given) > 2 * limits.max_messages:  # a turn of the assistant may have its thought before it
        raise InvalidRequest("input", f"at most {2 * limits.max_messages} items, has {len(given)}")
    for index, one in enumerate(given):
        _read_item(Fields(one, f"input[{index}]."), f"input[{index}]", turns)
    if turns.thought:
        turns.add("input", role="assistant", content="", reasoning=turns.thought)


def _read_item(item: Fields, place: str, turns: _Turns) -> None:
    for name in ("id", "status"):
        item.take(name)
    match item.text("type") or "message":
        case "message":
            role, content = item.text("role"), _content(item.take("content"), f"{place}.content")
            item.require_none_left()
            thought, turns.thought = turns.thought, ""
            turns.add(place, role=role, content=content, reasoning=thought)
        case "reasoning":
            turns.thought += _thought(item, place)
        case kind:
            raise InvalidRequest(f"{place}.type", f"{kind!r} is none of message, reasoning")


def _thought(item: Fields, place: str) -> str:
    """The text of an earlier thought."""
    if item.take("summary") or item.take("encrypted_content"):
        raise InvalidRequest(f"{place}.summary", "is not supported: send the thought itself back, as content")
    parts = item.many("content") or ()
    item.require_none_left()
    said = [Fields(part, f"{place}.content[{index}].") for index, part in enumerate(parts)]
    return "".join(part.text("text") or "" for part in said)


def _content(content: Any, place: str) -> Any:
    """The content of a message, with its parts named as in the chat API."""
    if not isinstance(content, list):
        return content
    return [_part(Fields(part, f"{place}[{index}]."), f"{place}[{index}]") for index, part in enumerate(content)]


def _part(part: Fields, place: str) -> dict[str, Any]:
    match part.text("type"):
        case kind if kind in TEXTS:
            return {"type": "text", "text": part.text("text") or ""}
        case "refusal":
            return {"type": "text", "text": part.text("refusal") or ""}
        case "input_image":
            url = part.text("image_url")
            if url is None:
                raise InvalidRequest(f"{place}.image_url", "is required: there are no files here")
            return {"type": "image_url", "image_url": {"url": url}}
        case kind:
            raise InvalidRequest(f"{place}.type", f"{kind!r} is none of input_text, output_text, refusal, input_image")


def _renamed(error: E, places: Sequence[str]) -> E:
    if match := re.match(r"messages\[(\d+)\]", error.field):
        return type(error)(places[int(match[1])] + error.field[match.end() :], error.problem)
    for name, here in RENAMED.items():
        if error.field == name or error.field.startswith(f"{name}."):
            return type(error)(here + error.field[len(name) :].replace(".json_schema", ""), error.problem)
    return error
