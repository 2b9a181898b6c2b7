"""Requests in plain Python become messages. An InvalidArgument names the field that does not fit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration

from router._gen import budget_router_pb2 as pb
from router.client.errors import InvalidArgument
from router.client.requests import (
    ContentPart,
    Message,
    Prompt,
    ResponseFormat,
    RoutingOptions,
    Sampling,
    Tool,
    ToolCall,
)
from router.client.words import words_of

M = TypeVar("M", bound=Any)


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
