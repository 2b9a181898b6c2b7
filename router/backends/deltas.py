"""The deltas of a chat stream as engines word them: texts or parts, two names of a thought, tool calls in pieces."""

from collections.abc import Iterable, Mapping
from typing import Any

from router.backends.http import expect_few, expect_type
from router.backends.text import SurrogateJoiner, whole
from router.domain import ToolCall, ToolCallDelta

MOST_CALLS = 1 << 16
"""Tool calls that one answer may have."""


def texts(delta: Mapping[str, Any]) -> tuple[str, str, str]:
    """Thought, answer and refusal of a delta. Raises TypeError where one of them is no text."""
    thought, content = delta.get("reasoning") or delta.get("reasoning_content") or "", delta.get("content") or ""
    refusal = delta.get("refusal") or ""
    if type(thought) is type(content) is type(refusal) is str:
        return thought, content, refusal
    expect_type(str, refusal)
    parts = [*_parts(thought, "thinking"), *_parts(content, "text")]
    return _of("thinking", parts), _of("text", parts), refusal + _of("refusal", parts)


def _parts(value: Any, kind: str) -> Iterable[tuple[str, str]]:
    """The kinds and texts of content that comes as a text or in parts; parts of other kinds show nothing here."""
    if type(value) is str:
        return [(kind, value)]
    return [found for part in expect_few(value) for found in _part(part, kind)]


def _part(part: Any, kind: str) -> Iterable[tuple[str, str]]:
    if type(part) is str:
        return [(kind, part)]
    match part.get("type"):
        case "text" | "output_text" | None:
            return [(kind, expect_type(str, part.get("text")) or "")]
        case "refusal":
            return [("refusal", expect_type(str, part.get("refusal")) or "")]
        case "thinking" | "reasoning":
            within = part.get("thinking") or part.get("text") or ""
            return [("thinking", within if type(within) is str else _of("text", _flat(within)))]
    return []


def _flat(parts: Any) -> Iterable[tuple[str, str]]:
    """The texts of parts that hold no further parts."""
    return [("text", expect_type(str, part.get("text")) or "") for part in expect_few(parts)]


def _of(kind: str, parts: Iterable[tuple[str, str]]) -> str:
    return "".join(text for found, text in parts if found == kind)


class CallReader:
    """Reads the pieces of tool calls."""

    def __init__(self) -> None:
        self._arguments: dict[int, SurrogateJoiner] = {}

    def read(self, delta: Mapping[str, Any]) -> list[ToolCallDelta]:
        """The pieces in a delta. Raises TypeError, ValueError where one is not of the API's shape."""
        pieces = expect_few(delta.get("tool_calls"))
        if not pieces:
            called = delta.get("function_call")  # the older API: one call, without a number
            pieces = [{"function": called}] if called else []
        return [self._piece(piece) for piece in pieces]

    def rest(self) -> list[ToolCallDelta]:
        """What stands for halves of characters that were never completed."""
        rests = ((index, joiner.rest()) for index, joiner in self._arguments.items())
        return [ToolCallDelta(index, ToolCall("", "", rest)) for index, rest in rests if rest]

    def _piece(self, piece: Mapping[str, Any]) -> ToolCallDelta:
        function = piece.get("function") or {}
        index = expect_type(int, piece.get("index")) or 0
        if not 0 <= index < MOST_CALLS:
            raise ValueError("a tool call has no such number")
        identity, name = (expect_type(str, word) or "" for word in (piece.get("id"), function.get("name")))
        arguments = expect_type(str, function.get("arguments")) or ""
        if arguments:
            arguments = self._arguments.setdefault(index, SurrogateJoiner()).join(arguments)
        return ToolCallDelta(index, ToolCall(whole(identity), whole(name), arguments))
