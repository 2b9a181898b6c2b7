"""What answers a chat request -> the chunks of a stream."""

import time
from collections.abc import Mapping
from typing import Any

import orjson

from router.domain import (
    Completion,
    ContentDelta,
    Decision,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    ServedEvent,
    ToolCallDelta,
)
from router.openai import replies

DONE = b"data: [DONE]\n\n"
ROLE = b'{"role":"assistant","content":""}'
UNFINISHED = b'"logprobs":null,"finish_reason":null}]}\n\n'


class ChatChunks:
    """Writes the events of one answer as server-sent events.

    Args:
        include_usage: a last chunk has the usage.
        include_decision: the first chunk has the decision, and the last one how it ended.
    """

    def __init__(self, decision: Decision, include_usage: bool, include_decision: bool) -> None:
        self._decision = decision
        self._usage = include_usage
        self._shows = include_decision
        self._called = False
        head = {
            "id": replies.chat_id(decision),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": decision.model,
        }
        # Nearly all chunks differ in one text, so everything around it is written once.
        self._head = b"data: " + orjson.dumps(head)[:-1]
        self._delta = self._head + b',"choices":[{"index":0,"delta":'

    def first(self) -> bytes:
        """The chunk before all others."""
        shown = b""
        if self._shows:
            shown = b',"budget_router":' + orjson.dumps({"decision": replies.decision(self._decision)})
        return self._head + shown + b',"choices":[{"index":0,"delta":' + ROLE + b"," + UNFINISHED

    def take(self, event: ServedEvent) -> bytes:
        """The chunks of an event; none for what is no part of the answer."""
        match event:
            case ReasoningDelta(text):
                said = orjson.dumps(text)
                return self._of(b'{"reasoning_content":' + said + b',"reasoning":' + said + b"}")
            case ContentDelta(text):
                return self._of(b'{"content":' + orjson.dumps(text) + b"}")
            case RefusalDelta(text):
                return self._of(b'{"refusal":' + orjson.dumps(text) + b"}")
            case ToolCallDelta():
                self._called = True
                return self._of(orjson.dumps({"tool_calls": [replies.tool_call_delta(event)]}))
            case Logprobs():
                choice = {"index": 0, "delta": {}, "logprobs": replies.logprobs(event.tokens), "finish_reason": None}
                return self._whole([choice])
            case Completion():
                return self._end(event)
            case _:
                return b""

    def failed(self, error: Mapping[str, Any]) -> bytes:
        """The last event of a stream that fails."""
        return b"data: " + orjson.dumps(error) + b"\n\n"

    def _end(self, end: Completion) -> bytes:
        finish = replies.finish_reason(end, called=self._called)
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}
        shown = {"budget_router": {"completion": replies.completion(end)}} if self._shows else {}
        last = self._whole([choice], **shown)
        return last + (self._whole([], usage=replies.usage(end)) if self._usage else b"") + DONE

    def _of(self, delta: bytes) -> bytes:
        return self._delta + delta + b"," + UNFINISHED

    def _whole(self, choices: list[dict[str, Any]], **beside: Any) -> bytes:
        return self._head + b"," + orjson.dumps({"choices": choices, **beside})[1:] + b"\n\n"
