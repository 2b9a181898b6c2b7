"""What answers a request -> the response of the Responses API, and its events."""

import time
from collections.abc import Mapping
from typing import Any

import orjson

from router.domain import (
    Completion,
    ContentDelta,
    Decision,
    FinishReason,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    ServedEvent,
)
from router.openai import replies

Body = dict[str, Any]

INCOMPLETE = {
    FinishReason.TRUNCATED: "max_output_tokens",
    FinishReason.NO_ANSWER: "max_output_tokens",
    FinishReason.ABORTED: "max_output_tokens",
    FinishReason.FILTERED: "content_filter",
}
FIXED: Mapping[str, Any] = {
    "background": False,
    "error": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "store": False,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "truncation": "disabled",
}
KINDS: Mapping[type, tuple[str, str, str, str]] = {
    ReasoningDelta: ("reasoning", "rs", "reasoning_text", "text"),
    ContentDelta: ("message", "msg", "output_text", "text"),
    RefusalDelta: ("message", "msg", "refusal", "refusal"),
}
"""By kind of piece: the type of its item, the prefix of its id, the type of its part, and the field of its text."""


class _Item:
    """An item of the output that is being written."""

    def __init__(self, kind: type, number: int, decision: Decision) -> None:
        self.kind = kind
        self.type, prefix, self.part_type, self._field = KINDS[kind]
        self.id = f"{prefix}_{decision.id}_{number}"
        self.place: Body = {"item_id": self.id, "output_index": number, "content_index": 0}
        self.texts: list[str] = []
        self.logprobs: list[Body] = []

    @property
    def part(self) -> Body:
        """Its only part."""
        part: Body = {"type": self.part_type, self._field: "".join(self.texts)}
        return part | ({"annotations": [], "logprobs": self.logprobs} if self.kind is ContentDelta else {})

    @property
    def done(self) -> Body:
        """The text, as its last event has it."""
        return {self._field: "".join(self.texts)} | ({"logprobs": []} if self.kind is ContentDelta else {})

    def body(self, status: str) -> Body:
        """The whole item."""
        item: Body = {"id": self.id, "type": self.type, "status": status, "content": [self.part] if self.texts else []}
        beside: Body = {"summary": []} if self.type == "reasoning" else {"role": "assistant"}
        return item | beside


class ResponseEvents:
    """Writes the events of one answer, and gathers the response.

    Args:
        echoed: fields of the request that the response repeats.
        include_decision: the response has the decision, and how it ended.
    """

    def __init__(self, decision: Decision, echoed: Mapping[str, Any], include_decision: bool) -> None:
        self._decision = decision
        self._echoed = echoed
        self._shows = include_decision
        self._created = int(time.time())
        self._items: list[_Item] = []
        self._end: Completion | None = None
        self._number = 0

    @property
    def response(self) -> Body:
        """The response as it is by now."""
        end = self._end
        why = None if end is None else INCOMPLETE.get(end.finish)
        status = "in_progress" if end is None else "incomplete" if why else "completed"
        shown: Body = {}
        if self._shows:
            shown["budget_router"] = {
                "decision": replies.decision(self._decision),
                "completion": None if end is None else replies.completion(end),
            }
        return {
            "id": f"resp_{self._decision.id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "incomplete_details": {"reason": why} if why else None,
            "model": self._decision.model,
            "output": [item.body("incomplete" if why else status) for item in self._items],
            "usage": None if end is None else _usage(end),
            **FIXED,
            **self._echoed,
            **shown,
        }

    def first(self) -> bytes:
        """The events before all others."""
        shown = self.response
        return self._event("response.created", response=shown) + self._event("response.in_progress", response=shown)

    def take(self, event: ServedEvent) -> bytes:
        """The events of an event; none for what is no part of the answer."""
        match event:
            case ReasoningDelta(text) | ContentDelta(text) | RefusalDelta(text):
                return self._said(type(event), text)
            case Logprobs(tokens) if self._items:
                self._items[-1].logprobs += replies.logprobs(tokens)["content"]
                return b""
            case Completion():
                self._end = event
                closed = self._closed()
                kind = "incomplete" if event.finish in INCOMPLETE else "completed"
                return closed + self._event(f"response.{kind}", response=self.response)
            case _:
                return b""

    def failed(self, error: Mapping[str, Any]) -> bytes:
        """The last event of a stream that fails."""
        said = error["error"]
        return self._event("error", code=said["code"], message=said["message"], param=said["param"])

    def _said(self, kind: type, text: str) -> bytes:
        opened = b""
        if not self._items or self._items[-1].kind is not kind:
            opened = self._closed() + self._opened(_Item(kind, len(self._items), self._decision))
        item = self._items[-1]
        item.texts.append(text)
        beside: Body = {"logprobs": []} if kind is ContentDelta else {}
        return opened + self._event(f"response.{item.part_type}.delta", **item.place, delta=text, **beside)

    def _opened(self, item: _Item) -> bytes:
        self._items.append(item)
        number = item.place["output_index"]
        added = self._event("response.output_item.added", output_index=number, item=item.body("in_progress"))
        return added + self._event("response.content_part.added", **item.place, part=item.part)

    def _closed(self) -> bytes:
        """The events that end the last item."""
        if not self._items:
            return b""
        item = self._items[-1]
        said = self._event(f"response.{item.part_type}.done", **item.place, **item.done)
        part = self._event("response.content_part.done", **item.place, part=item.part)
        number = item.place["output_index"]
        return said + part + self._event("response.output_item.done", output_index=number, item=item.body("completed"))

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(body) + b"\n\n"


def _usage(end: Completion) -> Body:
    counted = replies.usage(end)
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": counted["completion_tokens_details"],
        "total_tokens": counted["total_tokens"],
    }
