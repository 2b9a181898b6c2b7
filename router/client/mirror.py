"""Messages of the service -> the dataclasses that mirror them, and those -> JSON; both by the fields of the proto."""

from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from router._gen import budget_router_pb2 as pb
from router.client.replies import (
    Certificate,
    Checkpoint,
    Completion,
    Content,
    Decision,
    Event,
    Explanation,
    LikelyToken,
    Logprobs,
    Reasoning,
    Refusal,
    RungForecast,
    TokenLogprob,
    ToolCallDelta,
)
from router.client.requests import ToolCall
from router.client.words import words_of

T = TypeVar("T")

MESSAGES: dict[type, Any] = {
    Certificate: pb.Certificate,
    Checkpoint: pb.Checkpoint,
    Completion: pb.Completion,
    Decision: pb.Decision,
    Explanation: pb.ExplainResponse,
    LikelyToken: pb.LikelyToken,
    Logprobs: pb.Logprobs,
    RungForecast: pb.RungForecast,
    TokenLogprob: pb.TokenLogprob,
    ToolCall: pb.ToolCall,
    ToolCallDelta: pb.ToolCallDelta,
}
"""Each dataclass, and the message whose fields it has."""

KINDS = {message.DESCRIPTOR.full_name: kind for kind, message in MESSAGES.items()}
EVENTS: dict[str, type[Event]] = {
    "decision": Decision,
    "reasoning": Reasoning,
    "content": Content,
    "refusal": Refusal,
    "tool_call": ToolCallDelta,
    "logprobs": Logprobs,
    "checkpoint": Checkpoint,
    "completion": Completion,
}
"""The kinds of events under their names in the proto; text alone has no message of its own."""

NAMES = {kind: name for name, kind in EVENTS.items()}


def read(kind: type[T], message: Any) -> T:
    """A message as the dataclass that mirrors it."""
    return kind(**{field.name: _value(message, field) for field in message.DESCRIPTOR.fields})


def read_event(message: pb.GenerateResponse) -> Event | None:
    """An event of a stream; None for a kind that a newer service sends and this client does not know."""
    name = message.WhichOneof("event")
    if name is None:
        return None
    kind, value = EVENTS[name], getattr(message, name)
    return kind(value) if isinstance(value, str) else read(kind, value)  # type: ignore[call-arg, arg-type]


def to_json(reply: Any) -> dict[str, Any]:
    """A reply as protobuf writes JSON: the proto's names, enums in full, nothing for what is absent."""
    values = ((field, getattr(reply, field.name)) for field in MESSAGES[type(reply)].DESCRIPTOR.fields)
    return {field.name: _json(value, field) for field, value in values if value is not None}


def event_to_json(event: Event) -> dict[str, Any]:
    """An event under its name in the proto."""
    return {NAMES[type(event)]: event.text if isinstance(event, Reasoning | Content | Refusal) else to_json(event)}


def plain(message: Any) -> dict[str, Any]:
    """A message in plain types by its fields: enums as words, times in seconds since 1970, None for what is absent."""
    return {field.name: _plain(message, field) for field in message.DESCRIPTOR.fields}


def _plain(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is None:
        return _value(message, field)
    if field.is_repeated:
        return [plain(one) for one in value]
    if not message.HasField(field.name):
        return None
    return value.ToMicroseconds() / 1e6 if isinstance(value, Timestamp) else plain(value)


def _value(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        return tuple(_single(one, field) for one in value)
    return None if field.has_presence and not message.HasField(field.name) else _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return read(KINDS[field.message_type.full_name], value)
    return value if field.enum_type is None else words_of(field.enum_type).word(value)


def _json(value: Any, field: Any) -> Any:
    if field.is_repeated:
        return [to_json(one) if field.message_type is not None else one for one in value]
    if field.message_type is not None:
        return to_json(value)
    return value if field.enum_type is None else words_of(field.enum_type).name(value)
