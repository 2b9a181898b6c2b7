"""Requests in plain Python. The service decides whether a request makes sense."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict

Role = Literal["system", "developer", "user", "assistant", "tool"]
OnUnmet = Literal["top_rung", "cheapest_near_best", "reject"]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
LabelSource = Literal["verifier", "judge", "user", "agreement"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool: the whole of it in a conversation, a piece of it in a stream. `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ContentPart:
    """A piece of a turn: a text, or the https: or data: URL of an image."""

    text: str | None = None
    image_url: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. A last turn of the assistant is the beginning of the answer, which goes on behind it.

    Attributes:
        tool_calls: what an assistant's turn called.
        tool_call_id: the call that a tool's turn answers.
        image_urls: https: or data: URLs in a user's turn.
        tool_failed: a tool's turn says that its call failed, for `RoutingOptions.escalate`.
        parts: text and images in any order, in place of `content` and `image_urls`; a string is a text.
        reasoning: the thought behind an assistant's turn, as an earlier reply had it.
    """

    role: Role
    content: str = ""
    tool_calls: Sequence[ToolCall | Mapping[str, str]] = ()
    tool_call_id: str = ""
    image_urls: Sequence[str] = ()
    tool_failed: bool = False
    parts: Sequence[ContentPart | Mapping[str, str] | str] = ()
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    Attributes:
        parameters: the JSON schema of its arguments.
        strict: the engine holds the arguments to the schema; None leaves it to the engine.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form of an answer; the thought is free.

    Attributes:
        json_schema: the schema of a "json_schema"; only there.
        name: what hosted models call the schema.
        strict: whether a hosted model must follow the schema to the letter; None = its default.
    """

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Mapping[str, Any] | None = None
    name: str = ""
    strict: bool | None = None


class Sampling(TypedDict, total=False):
    """How to draw an answer. What is left out, or None, is left to the engine.

    Attributes:
        temperature: 0 to 2; 0 is greedy.
        max_answer_tokens: the longest answer after thinking.
        stop: texts that end the answer and are no part of it; they never end a thought.
        logprobs: get a Logprobs event after each piece of the answer, with `top_logprobs` likeliest tokens a place.
    """

    temperature: float | None
    max_answer_tokens: int | None
    seed: int | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    stop: str | Sequence[str] | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    logprobs: bool | None
    top_logprobs: int | None


Prompt: TypeAlias = str | Sequence[Message | Mapping[str, Any]]
"""One user message, or a whole conversation; a mapping has the keys of Message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """Options of a choice; None leaves one to the service.

    Attributes:
        max_loss: largest accepted loss of P(correct) against the top rung, 0..1, on average over prompts; excludes
            `min_quality`.
        min_quality: least accepted P(correct), above 0 to 1.
        min_thinking_tokens: thinking does not end earlier.
        max_thinking_tokens: thinking does not go on longer.
        max_latency: seconds that the whole answer may take.
        on_unmet: what to do where no rung is predicted to meet the target.
        rung: name of the rung to use whatever is predicted.
        conversation_id: requests with the same one keep the rung of the first.
        per_prompt_target: `max_loss` must hold by each prompt's own forecast, not on average over prompts.
        escalate: the conversation goes up one rung after a failed tool, a repeated call, or an answer that was cut off.
        reasoning_effort: the longest rung in words: that of its name, or a share of the ladder.
    """

    max_loss: float | None = None
    min_quality: float | None = None
    min_thinking_tokens: int | None = None
    max_thinking_tokens: int | None = None
    max_latency: float | None = None
    on_unmet: OnUnmet | None = None
    rung: str | None = None
    conversation_id: str | None = None
    per_prompt_target: bool | None = None
    escalate: bool | None = None
    reasoning_effort: ReasoningEffort | None = None


DEFAULTS = RoutingOptions()
