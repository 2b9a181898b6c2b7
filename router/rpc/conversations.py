"""Conversations of the protocol -> those of the domain: every turn checked, texts and images bounded."""

from collections.abc import Iterator, Sequence
from typing import Any

from router._gen import budget_router_pb2 as pb
from router.domain import Image, Message, Part, Prompt, Role, ToolCall
from router.errors import InvalidRequest
from router.requests.conversations import (
    require_content,
    require_few,
    require_few_attached,
    require_few_bytes,
    require_question,
    require_scheme,
)
from router.requests.limits import Limits
from router.rpc.enums import ROLES


def checked_prompt(messages: Sequence[pb.Message], limits: Limits) -> Prompt:
    """The conversation of a request. Raises InvalidRequest."""
    require_few(len(messages), limits)
    _require_few_bytes(messages, limits)
    prompt = read_prompt(messages)
    require_question(prompt)
    return prompt


def read_prompt(messages: Sequence[pb.Message]) -> Prompt:
    """The conversation of a request whose bounds are checked. Raises InvalidRequest where a turn is wrong."""
    turns = [_plain(message) for message in messages]
    return Prompt(tuple(turns if all(turns) else _completed(turns, messages)))  # type: ignore[arg-type]


def _require_few_bytes(messages: Sequence[pb.Message], limits: Limits) -> None:
    if shows := [message for message in messages if message.image_urls or message.parts]:
        _require_few_attached(messages)
        require_few_bytes(sum(map(_text_bytes, messages)), sum(map(_image_bytes, shows)), limits)
        return
    # ByteSize is cheap, and hardly above the size of the content, so the exact sum is rarely needed. It would copy
    # images, which are long.
    most = limits.max_prompt_bytes
    size = sum([message.ByteSize() for message in messages])
    if most < size <= 2 * most:
        size = sum(map(_text_bytes, messages))
    require_few_bytes(size, 0, limits)


def _require_few_attached(messages: Sequence[pb.Message]) -> None:
    require_few_attached(sum(len(one.tool_calls) + len(one.image_urls) + len(one.parts) for one in messages))


def _text_bytes(message: pb.Message) -> int:
    """Bytes of content, reasoning and calls, which is less than the size of the whole message."""
    calls = sum(call.ByteSize() for call in message.tool_calls) + len(message.tool_call_id.encode())
    texts = sum(len(part.text.encode()) for part in message.parts)
    return len(message.content.encode()) + len(message.reasoning.encode()) + texts + calls


def _image_bytes(message: pb.Message) -> int:
    return sum(map(len, message.image_urls)) + sum(len(part.image_url) for part in message.parts)


def _completed(turns: Sequence[Message | None], messages: Sequence[pb.Message]) -> Iterator[Message]:
    """All turns of a conversation, those included that are not of text alone. Raises InvalidRequest."""
    _require_few_attached(messages)
    return (turn or _message(messages[i], f"messages[{i}]") for i, turn in enumerate(turns))


def _plain(message: pb.Message) -> Message | None:
    """A turn of text alone, as nearly all are: the fast path. None where it is anything else, or wrong."""
    # Looked up without an error: `_message` finds out what is wrong, and says it.
    role, content = ROLES.members.get(message.role), message.content
    if role is None or not content or content.isspace():
        return None
    if message.tool_calls or message.tool_call_id or message.image_urls:
        return None
    if message.parts or message.reasoning or message.tool_failed:
        return None
    return Message(role, content)


def _message(message: pb.Message, field: str) -> Message:
    role = ROLES.member(message.role, f"{field}.role")
    _require_its_own(message, role, field)
    beside: dict[str, Any] = {
        "tool_calls": tuple(ToolCall(call.id, call.name, call.arguments) for call in message.tool_calls),
        "tool_call_id": message.tool_call_id,
        "tool_failed": message.tool_failed,
        "reasoning": message.reasoning,
    }
    if message.parts:
        turn = Message.of(role, tuple(_parts(message, role, field)), **beside)
    else:
        turn = Message(role, message.content, images=tuple(message.image_urls), **beside)
    for number, url in enumerate(message.image_urls):
        require_scheme(url, f"{field}.image_urls[{number}]")
    require_content(turn, f"{field}.{'parts' if message.parts else 'content'}")
    return turn


def _require_its_own(message: pb.Message, role: Role, field: str) -> None:
    """Refuse what belongs to another role, and two forms of one content. Raises InvalidRequest."""
    if message.tool_calls and role is not Role.ASSISTANT:
        raise InvalidRequest(f"{field}.tool_calls", "only an assistant calls tools")
    if message.reasoning and role is not Role.ASSISTANT:
        raise InvalidRequest(f"{field}.reasoning", "only an assistant's thought is kept")
    if message.tool_call_id and role is not Role.TOOL:
        raise InvalidRequest(f"{field}.tool_call_id", "only a tool answers a call")
    if message.tool_failed and role is not Role.TOOL:
        raise InvalidRequest(f"{field}.tool_failed", "only a tool fails")
    if message.image_urls and role is not Role.USER:
        raise InvalidRequest(f"{field}.image_urls", "only a user shows images")
    if message.parts and (message.content or message.image_urls):
        raise InvalidRequest(f"{field}.parts", "takes the place of content and image_urls: give one of both forms")


def _parts(message: pb.Message, role: Role, field: str) -> Iterator[Part]:
    for number, part in enumerate(message.parts):
        match part.WhichOneof("part"):
            case "text":
                yield part.text
            case "image_url" if role is Role.USER:
                url = part.image_url
                require_scheme(url, f"{field}.parts[{number}].image_url")
                yield Image(url)
            case "image_url":
                raise InvalidRequest(f"{field}.parts[{number}].image_url", "only a user shows images")
            case _:
                raise InvalidRequest(f"{field}.parts[{number}]", "text or image_url is required")
