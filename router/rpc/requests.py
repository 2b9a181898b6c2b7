"""Protocol messages -> domain types, checked once by `router.requests`."""

from typing import Any

from router._gen import budget_router_pb2 as pb
from router.admission.identity import Call
from router.domain import Outcome, RouteRequest, RoutingOptions, Tools
from router.errors import FieldError, InvalidRequest
from router.requests import tools as checked
from router.requests.limits import Limits
from router.requests.names import checked_name
from router.requests.options import routing_options
from router.requests.outcomes import checked_outcome
from router.rpc.conversations import checked_prompt
from router.rpc.enums import LABEL_SOURCES, ON_UNMET, REASONING_EFFORTS
from router.turn import Turn

MAX_BATCH = 1024


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
        tenant=call.on_behalf_of(checked_name(message.tenant, "tenant")),
        model=checked_name(message.model, "model"),
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
    parameters = sum(len(tool.parameters.encode()) for tool in message.tools[: checked.MAX_TOOLS])
    checked.require_few(
        len(message.tools), sum(tool.ByteSize() for tool in message.tools), parameters, limits.max_prompt_bytes
    )
    turn, offered = Turn(), []
    for index, one in enumerate(message.tools):
        strict = one.strict if one.HasField("strict") else None
        offered.append(checked.tool(one.name, one.description, one.parameters, strict, f"tools[{index}]"))
        await turn.spend(10 + len(one.parameters) // 16)
    parallel = message.parallel_tool_calls if message.HasField("parallel_tool_calls") else None
    return checked.tools(offered, message.tool_choice, parallel)


def outcome(message: pb.ReportOutcomeRequest, tenant: str | None) -> Outcome:
    """A checked outcome of a tenant's decision. Raises InvalidRequest."""
    source = LABEL_SOURCES.member(message.label_source, "label_source")
    correct = message.correct if message.HasField("correct") else None
    return checked_outcome(message.decision_id, correct, source, tenant)


def explained(message: pb.ExplainRequest, limits: Limits, call: Call) -> str | RouteRequest:
    """The decision id or the request to explain. Raises InvalidRequest."""
    match message.WhichOneof("subject"):
        case "decision_id" if message.decision_id:
            return checked_name(message.decision_id, "decision_id")
        case "request":
            try:
                return route_request(message.request, limits, call)
            except FieldError as error:
                raise error.within("request.") from error
        case _:
            raise InvalidRequest("decision_id", "a decision id or a request is required")


def _options(message: pb.RoutingOptions, limits: Limits, remaining: float | None) -> RoutingOptions:
    given: dict[str, Any] = {field.name: value for field, value in message.ListFields()}
    given["on_unmet"] = ON_UNMET.member(message.on_unmet, "options.on_unmet")
    if message.reasoning_effort:
        given["reasoning_effort"] = REASONING_EFFORTS.member(message.reasoning_effort, "options.reasoning_effort")
    if message.HasField("max_latency"):
        given["max_latency"] = message.max_latency.seconds + message.max_latency.nanos / 1e9
    return routing_options(given, limits.default_target, remaining)
