"""Protocol messages -> domain types. All checks of requests are made here, once."""

import math
from unicodedata import category

from router._gen import budget_router_pb2 as pb
from router.domain import (
    TOOL_CHOICES,
    MaxLoss,
    MinQuality,
    Outcome,
    QualityTarget,
    RouteRequest,
    RoutingOptions,
    Tool,
    Tools,
)
from router.errors import FieldError, InvalidRequest
from router.rpc.conversations import checked_prompt
from router.rpc.enums import LABEL_SOURCES, ON_UNMET
from router.rpc.identity import Call
from router.rpc.limits import Limits
from router.rpc.schemas import schema
from router.turn import Turn

MAX_BATCH = 1024
MAX_NAME = 128
"""Most bytes of an id or a name."""

MAX_TOOLS, MAX_SCHEMAS_BYTES = 128, 1 << 18
"""Most tools, and most bytes of the parameters of all."""


def route_request(
    message: pb.DecideRequest | pb.GenerateRequest, limits: Limits, call: Call, remaining: float | None = None
) -> RouteRequest:
    """A checked request; `remaining` seconds of the call's deadline bound the latency.

    Raises:
        InvalidRequest: a field is wrong.
        PermissionDenied: it names another tenant than its credentials.
    """
    asks = remaining is not None or message.HasField("options")
    return RouteRequest(
        prompt=checked_prompt(message.messages, limits),
        options=_options(message.options, limits, remaining) if asks else limits.default_options,
        tenant=call.on_behalf_of(_name(message.tenant, "tenant")),
        model=_name(message.model, "model"),
    )


async def batch(message: pb.DecideBatchRequest, limits: Limits, call: Call) -> list[RouteRequest]:
    """The checked requests of a batch; errors name the index. Raises InvalidRequest, PermissionDenied."""
    if not 1 <= len(message.requests) <= MAX_BATCH:
        raise InvalidRequest("requests", f"must have 1 to {MAX_BATCH} entries, has {len(message.requests)}")
    turn, requests = Turn(), []
    for index, one in enumerate(message.requests):
        try:
            requests.append(route_request(one, limits, call))
        except FieldError as error:
            raise error.within(f"requests[{index}].") from error
        await turn.spend(10 + one.ByteSize() // 4)  # a message has seven bytes at least, and costs two steps
    return requests


async def tools(message: pb.GenerateRequest, limits: Limits) -> Tools:
    """Checked tools, and the choice among them. Raises InvalidRequest."""
    if len(message.tools) > MAX_TOOLS:
        raise InvalidRequest("tools", f"at most {MAX_TOOLS}, has {len(message.tools)}")
    if (size := sum(tool.ByteSize() for tool in message.tools)) > limits.max_prompt_bytes:
        raise InvalidRequest("tools", f"at most {limits.max_prompt_bytes} bytes, has {size}")
    if (size := sum(len(tool.parameters.encode()) for tool in message.tools)) > MAX_SCHEMAS_BYTES:
        raise InvalidRequest("tools", f"at most {MAX_SCHEMAS_BYTES} bytes of parameters, has {size}")
    turn, offered = Turn(), []
    for index, tool in enumerate(message.tools):
        offered.append(_tool(tool, f"tools[{index}]"))
        await turn.spend(10 + len(tool.parameters) // 16)
    choice = message.tool_choice or "auto"
    if choice not in (*TOOL_CHOICES, *(tool.name for tool in offered)):
        raise InvalidRequest("tool_choice", f"must be one of {', '.join(TOOL_CHOICES)}, or the name of a tool")
    return Tools(tuple(offered), choice, _parallel(message))


def _parallel(message: pb.GenerateRequest) -> bool | None:
    if not message.HasField("parallel_tool_calls"):
        return None
    if not message.tools:
        raise InvalidRequest("parallel_tool_calls", "needs tools")
    return message.parallel_tool_calls


def _tool(message: pb.Tool, field: str) -> Tool:
    if not _name(message.name, f"{field}.name").strip():
        raise InvalidRequest(f"{field}.name", "is required")
    strict = message.strict if message.HasField("strict") else None
    parameters = schema(message.parameters or "{}", f"{field}.parameters")
    return Tool(message.name, message.description, parameters, strict)


def outcome(message: pb.ReportOutcomeRequest, tenant: str | None) -> Outcome:
    """A checked outcome of a tenant's decision. Raises InvalidRequest."""
    if not _name(message.decision_id, "decision_id"):
        raise InvalidRequest("decision_id", "is required")
    if not message.HasField("correct"):
        raise InvalidRequest("correct", "is required")
    if not 0 <= message.correct <= 1:
        raise InvalidRequest("correct", "must lie in 0..1")
    source = LABEL_SOURCES.member(message.label_source, "label_source")
    return Outcome(message.decision_id, message.correct, source, tenant)


def explained(message: pb.ExplainRequest, limits: Limits, call: Call) -> str | RouteRequest:
    """The decision id or the request to explain. Raises InvalidRequest."""
    match message.WhichOneof("subject"):
        case "decision_id" if message.decision_id:
            return _name(message.decision_id, "decision_id")
        case "request":
            try:
                return route_request(message.request, limits, call)
            except FieldError as error:
                raise error.within("request.") from error
        case _:
            raise InvalidRequest("decision_id", "a decision id or a request is required")


def _options(message: pb.RoutingOptions, limits: Limits, remaining: float | None) -> RoutingOptions:
    least, most = _tokens(message, "min_thinking_tokens") or 0, _tokens(message, "max_thinking_tokens")
    if most is not None and least > most:
        raise InvalidRequest("options.min_thinking_tokens", f"{least} is more than max_thinking_tokens, {most}")
    conversation = _name(message.conversation_id, "options.conversation_id") or None
    if message.escalate and conversation is None:
        raise InvalidRequest("options.escalate", "needs a conversation_id: a request alone has no step before it")
    return RoutingOptions(
        target=_target(message, limits.default_target),
        min_thinking_tokens=least,
        max_thinking_tokens=most,
        max_latency=_latency(message, remaining),
        latency_of_call=remaining is not None and not message.HasField("max_latency"),
        on_unmet=ON_UNMET.member(message.on_unmet, "options.on_unmet"),
        rung=_name(message.rung, "options.rung") or None,
        conversation_id=conversation,
        escalate=message.escalate,
    )


def _target(message: pb.RoutingOptions, default: QualityTarget) -> QualityTarget:
    match message.WhichOneof("target"):
        case "max_loss":
            if not 0 <= message.max_loss <= 1:  # false for NaN too
                raise InvalidRequest("options.max_loss", "must lie in 0..1")
            return MaxLoss(abs(message.max_loss), message.per_prompt_target)  # -0 would be shown as such
        case "min_quality":
            if not 0 < message.min_quality <= 1:
                raise InvalidRequest("options.min_quality", "must lie above 0 and at most 1")
            return MinQuality(message.min_quality)
        case _:
            named = message.per_prompt_target and isinstance(default, MaxLoss)
            return MaxLoss(default.value, per_prompt=True) if named else default


def _tokens(message: pb.RoutingOptions, name: str) -> int | None:
    if not message.HasField(name):
        return None
    value: int = getattr(message, name)
    if value < 0:
        raise InvalidRequest(f"options.{name}", "must not be negative")
    return value


def _latency(message: pb.RoutingOptions, remaining: float | None) -> float | None:
    if not message.HasField("max_latency"):
        return remaining
    seconds = message.max_latency.seconds + message.max_latency.nanos / 1e9
    if not seconds > 0:
        raise InvalidRequest("options.max_latency", "must be positive")
    return min(seconds, math.inf if remaining is None else remaining)


def _name(value: str, field: str) -> str:
    """A checked id or name, which is safe in logs and headers. Raises InvalidRequest."""
    if not value:
        return value
    if len(value) > MAX_NAME or len(value.encode()) > MAX_NAME:
        raise InvalidRequest(field, f"at most {MAX_NAME} bytes")
    # A line break in a name could forge a log line or a header.
    if any(category(character) == "Cc" for character in value):
        raise InvalidRequest(field, "must not hold control characters")
    return value
