"""The calls of the API as values: the method, its request, and how its reply is read. Nothing is sent here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Unpack

from grpc_health.v1 import health_pb2

from router._gen import budget_router_pb2 as pb
from router.client.encoding import message, messages, response_format, routing_options, sampling, tools
from router.client.errors import InvalidArgument
from router.client.mirror import read, read_event
from router.client.replies import Decision, Event, Explanation
from router.client.requests import LabelSource, Prompt, ResponseFormat, RoutingOptions, Sampling, Tool
from router.client.words import words_of

R_co = TypeVar("R_co", covariant=True)

CALL_SECONDS = 60.0
GENERATE_SECONDS = 600.0
"""Longer than a call: the service fits the thinking of `generate` into the time that is left."""


@dataclass(frozen=True, slots=True)
class Call(Generic[R_co]):
    """One call.

    Attributes:
        seconds: the timeout where the caller names none.
    """

    method: str
    request: Any
    read: Callable[[Any], R_co]
    seconds: float = CALL_SECONDS


def decide(prompt: Prompt, options: RoutingOptions, model: str, tenant: str) -> Call[Decision]:
    """Choose for one prompt. Raises InvalidArgument."""
    return Call("Decide", _decide_request(prompt, options, model, tenant), lambda reply: read(Decision, reply.decision))


def decide_batch(
    prompts: Iterable[Prompt], options: RoutingOptions, model: str, tenant: str
) -> Call[tuple[Decision, ...]]:
    """Choose for several prompts. Raises InvalidArgument."""
    requests = [_decide_request(prompt, options, model, tenant) for prompt in prompts]
    request = pb.DecideBatchRequest(requests=requests)
    return Call("DecideBatch", request, lambda reply: tuple(read(Decision, one) for one in reply.decisions))


def generate(
    prompt: Prompt,
    options: RoutingOptions,
    model: str,
    tenant: str,
    offered: Sequence[Tool | Mapping[str, Any]],
    tool_choice: str,
    show_checkpoints: bool = False,
    parallel_tool_calls: bool | None = None,
    form: ResponseFormat | Mapping[str, Any] | None = None,
    **drawn: Unpack[Sampling],
) -> Call[Event | None]:
    """Choose and answer. Raises InvalidArgument."""
    request = message(
        pb.GenerateRequest,
        messages=messages(prompt),
        options=routing_options(options),
        model=model,
        tenant=tenant,
        sampling=sampling(drawn),
        tools=tools(offered),
        tool_choice=tool_choice,
        show_checkpoints=show_checkpoints,
        response_format=response_format(form),
        parallel_tool_calls=parallel_tool_calls,
    )
    return Call("Generate", request, read_event, GENERATE_SECONDS)


def explain(
    prompt: Prompt | None, decision_id: str, options: RoutingOptions, model: str, tenant: str
) -> Call[Explanation]:
    """Explain a choice for a prompt, or an earlier decision. Raises InvalidArgument."""
    if (prompt is None) == (not decision_id):
        raise InvalidArgument("a prompt or a decision_id is needed, one of them", fields=["decision_id"])
    if prompt is None and (model or options != RoutingOptions()):
        raise InvalidArgument("options and model belong to a prompt, not to a decision_id", fields=["decision_id"])
    if prompt is None:
        request = message(pb.ExplainRequest, decision_id=decision_id, tenant=tenant)
    else:
        request = pb.ExplainRequest(request=_decide_request(prompt, options, model, tenant))
    return Call("Explain", request, lambda reply: read(Explanation, reply))


def report_outcome(decision_id: str, correct: float, label_source: LabelSource) -> Call[None]:
    """Say how right an answer was. Raises InvalidArgument."""
    source = words_of(pb.LabelSource.DESCRIPTOR).number(label_source, "label_source")
    request = message(pb.ReportOutcomeRequest, decision_id=decision_id, correct=correct, label_source=source)
    return Call("ReportOutcome", request, lambda _: None)


def check() -> Call[bool]:
    """Ask the health service whether calls are served."""
    serving = health_pb2.HealthCheckResponse.SERVING
    return Call("Check", health_pb2.HealthCheckRequest(), lambda reply: bool(reply.status == serving))


def _decide_request(prompt: Prompt, options: RoutingOptions, model: str, tenant: str) -> pb.DecideRequest:
    turns, asked = messages(prompt), routing_options(options)
    return message(pb.DecideRequest, messages=turns, options=asked, model=model, tenant=tenant)
