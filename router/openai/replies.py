"""What answers a chat request -> one response, and the parts of it that streams have, too."""

import time
from collections.abc import Sequence
from typing import Any

from router.chat_form import call_body
from router.domain import (
    Completion,
    ContentDelta,
    Decision,
    FinishReason,
    Logprobs,
    MaxLoss,
    ReasoningDelta,
    RefusalDelta,
    ServedEvent,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)

Body = dict[str, Any]

FINISHES = {
    FinishReason.NATURAL: "stop",
    FinishReason.FORCED: "stop",
    FinishReason.CONVERGED: "stop",
    FinishReason.REFUSED: "stop",
    FinishReason.TRUNCATED: "length",
    FinishReason.NO_ANSWER: "length",
    FinishReason.ABORTED: "length",
    FinishReason.FILTERED: "content_filter",
}
"""How an answer ended, in the words of the OpenAI API, which has none for an engine that gives up."""


class ChatAnswer:
    """Gathers the events of one answer.

    Args:
        include_decision: the response has the decision, and how it ended.
    """

    def __init__(self, chosen: Decision, include_decision: bool) -> None:
        self._chosen = chosen
        self._shows = include_decision
        self._end: Completion | None = None
        self._texts: dict[type, list[str]] = {ContentDelta: [], ReasoningDelta: [], RefusalDelta: []}
        self._calls: dict[int, ToolCall] = {}
        self._tokens: list[TokenLogprob] = []

    def take(self, event: ServedEvent) -> None:
        """Add the next event."""
        match event:
            case ContentDelta() | ReasoningDelta() | RefusalDelta():
                self._texts[type(event)].append(event.text)
            case ToolCallDelta(index, call):
                before = self._calls.get(index, ToolCall("", "", ""))
                self._calls[index] = ToolCall(
                    before.id or call.id, before.name or call.name, before.arguments + call.arguments
                )
            case Logprobs(tokens):
                self._tokens += tokens
            case Completion():
                self._end = event

    @property
    def response(self) -> Body:
        """The whole response, once the completion is there."""
        assert self._end is not None
        choice = {
            "index": 0,
            "message": self._message(),
            "logprobs": logprobs(self._tokens) if self._tokens else None,
            "finish_reason": finish_reason(self._end, called=bool(self._calls)),
        }
        shown = {"decision": decision(self._chosen), "completion": completion(self._end)}
        return {
            "id": chat_id(self._chosen),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._chosen.model,
            "choices": [choice],
            "usage": usage(self._end),
            **({"budget_router": shown} if self._shows else {}),
        }

    def _text(self, kind: type[ContentDelta | ReasoningDelta | RefusalDelta]) -> str:
        return "".join(self._texts[kind])

    def _message(self) -> Body:
        content, thought = self._text(ContentDelta), self._text(ReasoningDelta)
        refused = self._text(RefusalDelta)
        message: Body = {
            "role": "assistant",
            "content": content if content or not (self._calls or refused) else None,
            "refusal": refused or None,
        }
        if thought:
            message |= {"reasoning_content": thought, "reasoning": thought}
        if self._calls:
            message["tool_calls"] = [call_body(call) for _, call in sorted(self._calls.items())]
        return message


def chat_id(decision: Decision) -> str:
    """The id of an answer: that of its decision, behind OpenAI's prefix."""
    return f"chatcmpl-{decision.id}"


def finish_reason(end: Completion, *, called: bool) -> str:
    """How an answer ended; `called` = with calls of tools."""
    found = FINISHES[end.finish]
    return "tool_calls" if called and found == "stop" else found


def usage(end: Completion) -> Body:
    """Tokens; those that nobody has counted are 0, which clients can add up. `budget_router` says null there."""
    prompt, thought, said = end.prompt_tokens or 0, end.thinking_tokens or 0, end.answer_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": thought + said,
        "total_tokens": prompt + thought + said,
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def logprobs(tokens: Sequence[TokenLogprob]) -> Body:
    """Log-probabilities of tokens of the answer."""
    return {
        "content": [
            {
                **_token(one.token, one.logprob),
                "top_logprobs": [_token(token, logprob) for token, logprob in one.top],
            }
            for one in tokens
        ],
        "refusal": None,
    }


def _token(token: str, logprob: float) -> Body:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def tool_call_delta(delta: ToolCallDelta) -> Body:
    """A piece of a tool call; its first one has id, type and name."""
    call = delta.call
    function: Body = {"arguments": call.arguments} | ({"name": call.name} if call.name else {})
    first: Body = {"id": call.id, "type": "function"} if call.id else {}
    return {"index": delta.index, **first, "function": function}


def decision(value: Decision) -> Body:
    """A decision, named as in the proto file."""
    target = "max_loss" if isinstance(value.target, MaxLoss) else "min_quality"
    return {
        "decision_id": value.id,
        "rung": value.rung.name,
        "budget_tokens": value.rung.tokens,
        "predicted_quality": value.predicted_quality,
        "expected_thinking_tokens": value.expected_thinking_tokens,
        target: value.target.value,
        "meets_target": value.choice.meets_target,
        "certified": value.choice.certificate is not None,
        "reason": value.choice.reason,
        "source": value.source.value,
        "rule": value.rule.value,
        "model": value.model,
        "model_version": value.model_version,
        "relaxed": value.target_relaxation,
        "truncated_characters": value.truncated_characters,
        "escalation": None if value.escalation is None else value.escalation.value,
    }


def completion(end: Completion) -> Body:
    """How a generation ended, named as in the proto file; null = nobody knows."""
    return {
        "finish_reason": end.finish.value,
        "rung": end.budget.name,
        "budget_tokens": end.budget.tokens,
        "prompt_tokens": end.prompt_tokens,
        "thinking_tokens": end.thinking_tokens,
        "answer_tokens": end.answer_tokens,
        "probe_tokens": end.probe_tokens,
        "count_source": end.count_source.value,
        "enforcement": end.enforcement.value,
        "budget_violated": end.budget_violated,
        "counts_disagree": end.counts_disagree,
        "reported_thinking_tokens": end.reported_thinking_tokens,
        "attempts": end.attempts,
    }
