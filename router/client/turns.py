"""What a stream has brought, as the assistant's turn of a conversation that goes on."""

from collections.abc import Iterable

from router.client.replies import Content, Event, Reasoning, Refusal, ToolCallDelta
from router.client.requests import Message, ToolCall


def turn(events: Iterable[Event]) -> Message:
    """The assistant's turn of a stream, with its thought and its tool calls: the next request sends it back.

    >>> turn([Reasoning("2 and 2 "), Reasoning("are 4"), Content("4")]).reasoning
    '2 and 2 are 4'
    """
    thought, said = "", ""
    calls: dict[int, ToolCall] = {}
    for event in events:
        match event:
            case Reasoning(text):
                thought += text
            case Content(text) | Refusal(text):
                said += text
            case ToolCallDelta(index, piece):
                calls[index] = _joined(calls.get(index), piece)
    return Message("assistant", said, tuple(calls[index] for index in sorted(calls)), reasoning=thought)


def _joined(call: ToolCall | None, piece: ToolCall) -> ToolCall:
    if call is None:
        return piece
    return ToolCall(call.id or piece.id, call.name or piece.name, call.arguments + piece.arguments)
