"""Requests in plain Python, and the messages they become. The service decides whether a request makes sense."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar

from google.protobuf.duration_pb2 import Duration

from router._gen import budget_router_pb2 as pb
from router.client.errors import InvalidArgument
from router.client.words import words_of

Role = Literal["system", "developer", "user", "assistant", "tool"]
OnUnmet = Literal["top_rung", "cheapest_near_best", "reject"]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
LabelSource = Literal["verifier", "judge", "user", "agreement"]
M = TypeVar("M", bound=Any)


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


def routing_options(given: RoutingOptions) -> pb.RoutingOptions:
    """The options as a message. Raises InvalidArgument."""
    if given.max_loss is not None and given.min_quality is not None:
        both = ["options.max_loss", "options.min_quality"]
        raise InvalidArgument("options.max_loss and options.min_quality exclude each other", fields=both)
    values = {field.name: getattr(given, field.name) for field in fields(given)}
    for name, enum in (("on_unmet", pb.OnUnmet), ("reasoning_effort", pb.ReasoningEffort)):
        values[name] = words_of(enum.DESCRIPTOR).number(values[name], f"options.{name}")
    values["max_latency"] = _duration(given.max_latency, "options.max_latency")
    return message(pb.RoutingOptions, "options.", **values)


def messages(prompt: Prompt) -> list[pb.Message]:
    """The turns of a prompt. Raises InvalidArgument."""
    turns = [Message("user", prompt)] if isinstance(prompt, str) else prompt
    return [_turn(_read(turn, Message, f"messages[{i}]"), f"messages[{i}].") for i, turn in enumerate(turns)]


def tools(offered: Sequence[Tool | Mapping[str, Any]]) -> list[pb.Tool]:
    """The tools on offer. Raises InvalidArgument."""
    return [_tool(_read(tool, Tool, f"tools[{i}]"), f"tools[{i}].") for i, tool in enumerate(offered)]


def sampling(given: Sampling) -> pb.SamplingOptions | None:
    """How to draw an answer, as a message; None where nothing is named. Raises InvalidArgument."""
    named: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if unknown := named.keys() - Sampling.__annotations__.keys():
        raise TypeError(f"generate() got unexpected arguments: {', '.join(sorted(unknown))}")
    if isinstance(named.get("stop"), str):  # else each of its characters would be one
        named["stop"] = [named["stop"]]
    return message(pb.SamplingOptions, "sampling.", **named) if named else None


def response_format(given: ResponseFormat | Mapping[str, Any] | None) -> pb.ResponseFormat | None:
    """The form of an answer as a message; a mapping may also have OpenAI's form. Raises InvalidArgument."""
    if given is None:
        return None
    if isinstance(given, Mapping) and isinstance(within := given.get("json_schema"), Mapping) and "schema" in within:
        given = {"type": given.get("type"), **{"json_schema" if k == "schema" else k: v for k, v in within.items()}}
    form = _read(given, ResponseFormat, "response_format")
    schema = _json(form.json_schema, "response_format.json_schema")
    return message(
        pb.ResponseFormat, "response_format.", type=form.type, json_schema=schema, name=form.name, strict=form.strict
    )


def message(kind: type[M], at: str = "", **values: Any) -> M:
    """A message of these values; None leaves a field unset.

    Raises:
        InvalidArgument: a value does not fit its field, which is named with `at` before it.
    """
    built: M = kind()
    # One field at a time, since protobuf's error does not say which of several values is wrong.
    for name, value in values.items():
        try:
            built.MergeFrom(kind(**{name: value}))
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"{at}{name}: {error}", fields=[at + name]) from error
    return built


def _turn(turn: Message, at: str) -> pb.Message:
    calls = [_read(call, ToolCall, f"{at}tool_calls[{i}]") for i, call in enumerate(turn.tool_calls)]
    return message(
        pb.Message,
        at,
        role=words_of(pb.Role.DESCRIPTOR).number(turn.role, f"{at}role"),
        content=turn.content,
        tool_calls=[
            message(pb.ToolCall, f"{at}tool_calls[{i}].", id=call.id, name=call.name, arguments=call.arguments)
            for i, call in enumerate(calls)
        ],
        tool_call_id=turn.tool_call_id,
        image_urls=turn.image_urls,
        tool_failed=turn.tool_failed,
        parts=[_part(part, f"{at}parts[{i}]") for i, part in enumerate(turn.parts)],
        reasoning=turn.reasoning,
    )


def _part(given: ContentPart | Mapping[str, str] | str, at: str) -> pb.ContentPart:
    part = ContentPart(given) if isinstance(given, str) else _read(given, ContentPart, at)
    if (part.text is None) == (part.image_url is None):
        raise InvalidArgument(f"{at}: text or image_url is required, one of both", fields=[at])
    return message(pb.ContentPart, f"{at}.", text=part.text, image_url=part.image_url)


def _read(given: M | Mapping[str, Any], kind: type[M], field: str) -> M:
    """`given` itself, or a mapping of the same names; None in it counts as left out, as chat APIs have it."""
    if isinstance(given, kind):
        return given
    try:
        known: M = kind(**{name: value for name, value in dict(given).items() if value is not None})
    except (TypeError, ValueError) as error:
        named = ", ".join(one.name for one in fields(kind))
        raise InvalidArgument(f"{field}: must have the keys of {kind.__name__} ({named})", fields=[field]) from error
    return known


def _tool(tool: Tool, at: str) -> pb.Tool:
    schema = _json(tool.parameters, f"{at}parameters")
    return message(pb.Tool, at, name=tool.name, description=tool.description, parameters=schema, strict=tool.strict)


def _json(value: Mapping[str, Any] | None, field: str) -> str | None:
    try:
        return None if value is None else json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{field}: {error}", fields=[field]) from error


def _duration(seconds: float | None, field: str) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    try:
        duration.FromTimedelta(timedelta(seconds=seconds))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"{field}: must be a number of seconds, not {seconds}", fields=[field]) from error
    return duration
