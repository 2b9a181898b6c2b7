"""Conversations as JSON in the form of the OpenAI chat API: in the outcome log, and in files."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from router.domain import INSTRUCTIONS, Image, Message, Part, Prompt, Role, ToolCall

MOST_MESSAGES = 10_000
"""Messages of a conversation that are read."""

SHOWN_URL = 2_048
"""Longest URL of an image that is kept as it is."""

MESSAGE = frozenset(("role", "content", "tool_calls", "tool_call_id", "tool_failed", "reasoning", "reasoning_content"))
PLAIN = frozenset(("role", "content"))
CALL, FUNCTION = frozenset(("id", "type", "function")), frozenset(("name", "arguments"))
"""Fields that are read; another one may be there if it says nothing."""

Body = dict[str, Any]


class ChatFormError(ValueError):
    """JSON that is no conversation; the message names the field and what is wrong with it."""


def to_json(prompt: Prompt) -> str | None:
    """A conversation as JSON; None where its only message is a user's text, which says it all.

    An image within a URL becomes the digest of that URL: what is scored of an image is that it is there.
    """
    if prompt == Prompt.of(prompt.text):
        return None
    return canonical(prompt)


def canonical(prompt: Prompt) -> str:
    """A conversation as JSON, equal for equal conversations. Raises TypeError where a text has half a surrogate."""
    return orjson.dumps([_body(message) for message in prompt.messages]).decode()


def from_json(text: str) -> Prompt:
    """The conversation in some JSON. Raises ChatFormError."""
    try:
        return from_list(orjson.loads(text))
    except (orjson.JSONDecodeError, RecursionError):
        raise ChatFormError("messages: is not JSON") from None


def from_list(turns: object) -> Prompt:
    """The conversation of a list of messages. Raises ChatFormError."""
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise ChatFormError("messages: is not a list of messages")
    if len(turns) > MOST_MESSAGES:
        raise ChatFormError(f"messages: at most {MOST_MESSAGES:,} are read, has {len(turns):,}")
    prompt = Prompt(tuple(_message(turn, f"messages[{i}]") for i, turn in enumerate(turns)))
    if all(message.role in INSTRUCTIONS for message in prompt.messages):
        raise ChatFormError("messages: a system message alone asks for nothing: a message of a user is required")
    return prompt


def _body(message: Message) -> Body:
    body: Body = {"role": message.role.value, "content": message.content}
    if message.images or message.parts:
        parts = message.parts or (message.content, *map(Image, message.images))
        body["content"] = [part_body(_kept(part)) for part in parts]
    if message.reasoning:
        body["reasoning"] = message.reasoning
    if message.tool_calls:
        body["tool_calls"] = [call_body(call) for call in message.tool_calls]
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_failed:
        body["tool_failed"] = True
    return body


def part_body(part: Part) -> Body:
    """A part of a content in the chat API's form."""
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": part.url}}
    return {"type": "text", "text": part}


def call_body(call: ToolCall) -> Body:
    """A tool call of an assistant in the chat API's form."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _kept(part: Part) -> Part:
    """A part; an image whose URL is long or holds it becomes the digest of that URL."""
    if not isinstance(part, Image) or (len(part.url) <= SHOWN_URL and not part.url.startswith("data:")):
        return part
    return Image(f"sha256:{hashlib.sha256(part.url.encode()).hexdigest()}")


def _message(turn: object, field: str) -> Message:
    if isinstance(turn, dict) and turn.keys() == PLAIN and isinstance(turn["content"], str):  # most of them, at once
        return Message(_role(turn["role"], f"{field}.role"), turn["content"])
    given = _fields(turn, MESSAGE, field)
    role = _role(given.get("role"), f"{field}.role")
    parts = _content(given.get("content"), f"{field}.content")
    thought = _text(given.get("reasoning") or given.get("reasoning_content") or "", f"{field}.reasoning")
    calls = tuple(_call(one, f"{field}.tool_calls[{i}]") for i, one in enumerate(_list(given, "tool_calls", field)))
    answered = _text(given.get("tool_call_id") or "", f"{field}.tool_call_id")
    failed = given.get("tool_failed") or False
    if not isinstance(failed, bool):
        raise ChatFormError(f"{field}.tool_failed: is neither true nor false")
    for name, said, speaker, rule in (
        ("tool_calls", calls, Role.ASSISTANT, "only an assistant calls tools"),
        ("tool_call_id", answered, Role.TOOL, "only a tool answers a call"),
        ("tool_failed", failed, Role.TOOL, "only a tool fails"),
        ("reasoning", thought, Role.ASSISTANT, "only an assistant's thought is kept"),
    ):
        if said and role is not speaker:
            raise ChatFormError(f"{field}.{name}: {rule}")
    read = Message.of(role, parts, tool_calls=calls, tool_call_id=answered, tool_failed=failed, reasoning=thought)
    # A text with images behind it is the same as that text beside these images.
    return replace(read, parts=()) if isinstance(parts[0], str) and len(parts) - len(read.images) == 1 else read


def _role(given: object, field: str) -> Role:
    try:
        return Role(given)
    except ValueError:
        raise ChatFormError(f"{field}: {given!r} is none of {', '.join(role.value for role in Role)}") from None


def _content(given: object, field: str) -> tuple[Part, ...]:
    """The parts of a content, which is a text, or a list of parts, or null; at least one."""
    if given is None or isinstance(given, str):
        return (given or "",)
    if not isinstance(given, Sequence):
        raise ChatFormError(f"{field}: is neither a text nor a list of parts")
    parts: list[Part] = []
    for i, part in enumerate(given):
        at = f"{field}[{i}]"
        match _fields(part, frozenset(("type", "text", "image_url")), at):
            case {"type": "text", "text": text}:
                parts.append(_text(text, f"{at}.text"))
            case {"type": "image_url", "image_url": {"url": url}}:
                parts.append(Image(_text(url, f"{at}.image_url.url")))
            case other:
                raise ChatFormError(f"{at}.type: {other.get('type')!r} is none of text, image_url")
    return tuple(parts) or ("",)


def _call(given: object, field: str) -> ToolCall:
    call = _fields(given, CALL, field)
    function = _fields(call.get("function"), FUNCTION, f"{field}.function")
    arguments = function.get("arguments") or ""
    if isinstance(arguments, Mapping):  # as chat templates have it; the API itself has them as JSON in a text
        arguments = orjson.dumps(arguments).decode()
    return ToolCall(
        _text(call.get("id") or "", f"{field}.id"),
        _text(function.get("name"), f"{field}.function.name"),
        _text(arguments, f"{field}.function.arguments"),
    )


def _fields(given: object, known: frozenset[str], field: str) -> Body:
    """An object; of fields that are not known, those are left out that say nothing."""
    if not isinstance(given, Mapping):
        raise ChatFormError(f"{field}: is not an object")
    for name in sorted(map(str, given.keys() - known)):
        if given[name] not in (None, "", [], {}, False):
            raise ChatFormError(f"{field}.{name}: is no known field; the fields are {', '.join(sorted(known))}")
    return {name: value for name, value in given.items() if name in known}


def _list(given: Body, name: str, field: str) -> Sequence[object]:
    value = given.get(name) or ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ChatFormError(f"{field}.{name}: is not a list")
    return value


def _text(given: object, field: str) -> str:
    if not isinstance(given, str):
        raise ChatFormError(f"{field}: is not a text")
    return given
