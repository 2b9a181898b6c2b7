"""The end of a response that passes a gateway: how it ended and what was counted, at a bounded cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

STREAM_BYTES, JSON_BYTES = 64 << 10, 256 << 10
"""Bytes that are kept: of a stream its last ones, which hold its last events; JSON can only be read as a whole."""

Body = Mapping[str, Any]


class Tail:
    """What is kept of a response."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._most = 0

    def __len__(self) -> int:
        """Bytes that are kept."""
        return len(self._held)

    def add(self, piece: bytes) -> None:
        """Take the next piece. Of what is too long the beginning is dropped."""
        if not self._most and piece:
            self._most = JSON_BYTES if piece.lstrip()[:1] == b"{" else STREAM_BYTES
        self._held += piece
        if len(self._held) > self._most + STREAM_BYTES:  # rarely, so that not every piece moves all others
            del self._held[: -self._most]

    def end(self) -> dict[str, Any] | None:
        """Finish reason, usage and timings as a last chunk of the chat API; None where the response has no end."""
        last: dict[str, Any] = {}
        for given in self._bodies():
            said = _chat(given)
            finish = _first(said.get("choices")).get("finish_reason")
            last = {name: said[name] for name in ("usage", "timings") if said.get(name)} | last
            if finish:
                return last | {"choices": [{"index": 0, "finish_reason": finish, "delta": {}}]}
        return None

    def _bodies(self) -> Sequence[Body]:
        """The JSON in it; of a stream the events, the last one first."""
        if self._most == JSON_BYTES:
            return [_object(bytes(self._held))]
        lines = reversed(self._held[-self._most :].splitlines())
        return [_object(bytes(line[5:])) for line in lines if line.startswith(b"data:")]


def _object(text: bytes) -> Body:
    """An object; empty where it is none, such as `[DONE]` or a line that was cut."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _first(choices: object) -> Body:
    found = choices[0] if isinstance(choices, list) and choices else None
    return found if isinstance(found, dict) else {}


def _chat(given: Body) -> Body:
    """The Responses API in the words of the chat API; anything else as it is."""
    response = given.get("response", given)
    if not isinstance(response, dict) or response.get("object") != "response":
        return given
    status, usage = response.get("status"), response.get("usage")
    if status not in ("completed", "incomplete") or not isinstance(usage, dict):
        return {}
    return {
        "choices": [{"finish_reason": "stop" if status == "completed" else "length"}],
        "usage": {
            "prompt_tokens": usage.get("input_tokens"),
            "completion_tokens": usage.get("output_tokens"),
            "completion_tokens_details": usage.get("output_tokens_details"),
        },
    }
