"""Protocol messages <-> domain types. All checks on what comes in are here, made once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from router._gen import budget_router_pb2 as pb
from router.domain import (
    DEFAULT_ANSWER_TOKENS,
    Certificate,
    Completion,
    ContentDelta,
    CountSource,
    Decision,
    DecisionSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    LabelSource,
    MaxLoss,
    Message,
    MinQuality,
    OnUnmet,
    Options,
    Outcome,
    Prompt,
    QualityTarget,
    ReasoningBudget,
    ReasoningDelta,
    Role,
    RouteRequest,
    Sampling,
    TokenForecast,
)
from router.errors import FieldError, InvalidRequest

MAX_BATCH = 1024
MAX_ANSWER_TOKENS = 32_768
MAX_CONVERSATION_ID = 128

E = TypeVar("E")

ROLES: Mapping[int, Role] = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
    pb.ROLE_TOOL: Role.TOOL,
}
ON_UNMET: Mapping[int, OnUnmet] = {
    pb.ON_UNMET_UNSPECIFIED: OnUnmet.TOP_RUNG,
    pb.ON_UNMET_TOP_RUNG: OnUnmet.TOP_RUNG,
    pb.ON_UNMET_CHEAPEST_NEAR_BEST: OnUnmet.CHEAPEST_NEAR_BEST,
    pb.ON_UNMET_REJECT: OnUnmet.REJECT,
}
LABEL_SOURCES: Mapping[int, LabelSource] = {
    pb.LABEL_SOURCE_VERIFIER: LabelSource.VERIFIER,
    pb.LABEL_SOURCE_JUDGE: LabelSource.JUDGE,
    pb.LABEL_SOURCE_USER: LabelSource.USER,
    pb.LABEL_SOURCE_AGREEMENT: LabelSource.AGREEMENT,
}
SOURCES = {source: f"DECISION_SOURCE_{source.name}" for source in DecisionSource}
ENFORCEMENTS = {kind: f"ENFORCEMENT_{kind.name}" for kind in Enforcement}
FINISHES = {reason: f"FINISH_REASON_{reason.name}" for reason in FinishReason}
COUNT_SOURCES = {source: f"COUNT_SOURCE_{source.name}" for source in CountSource}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what comes in, and the target of a caller who names none."""

    max_messages: int
    max_prompt_bytes: int
    default_target: QualityTarget


def route_request(
    message: pb.DecideRequest | pb.GenerateRequest, limits: Limits, remaining: float | None = None
) -> RouteRequest:
    """A checked request; `remaining` seconds of the call's deadline bound the latency. Raises InvalidRequest."""
    return RouteRequest(
        prompt=_prompt(message.messages, limits),
        options=_options(message.options, limits, remaining),
        tenant=message.tenant or "default",
        model=message.model,
    )


def batch(message: pb.DecideBatchRequest, limits: Limits) -> list[RouteRequest]:
    """The checked requests of a batch; fields at fault are named with their index. Raises InvalidRequest."""
    if not 1 <= len(message.requests) <= MAX_BATCH:
        raise InvalidRequest("requests", f"must have 1 to {MAX_BATCH} entries, has {len(message.requests)}")
    requests = []
    for index, one in enumerate(message.requests):
        try:
            requests.append(route_request(one, limits))
        except FieldError as error:
            raise error.within(f"requests[{index}].") from error
    return requests


def sampling(message: pb.SamplingOptions) -> Sampling:
    """Checked sampling options. Raises InvalidRequest."""
    if not 0 <= message.temperature <= 2:
        raise InvalidRequest("sampling.temperature", "must lie in 0..2")
    longest = message.max_answer_tokens if message.HasField("max_answer_tokens") else DEFAULT_ANSWER_TOKENS
    if not 1 <= longest <= MAX_ANSWER_TOKENS:
        raise InvalidRequest("sampling.max_answer_tokens", f"must lie in 1..{MAX_ANSWER_TOKENS}")
    return Sampling(message.temperature, longest, message.seed if message.HasField("seed") else None)


def outcome(message: pb.ReportOutcomeRequest) -> Outcome:
    """A checked outcome. Raises InvalidRequest."""
    if not message.decision_id:
        raise InvalidRequest("decision_id", "is required")
    if not message.HasField("correct"):
        raise InvalidRequest("correct", "is required")
    if not 0 <= message.correct <= 1:
        raise InvalidRequest("correct", "must lie in 0..1")
    source = _member(LABEL_SOURCES, message.label_source, "label_source")
    return Outcome(message.decision_id, message.correct, source)


def _prompt(messages: Sequence[pb.Message], limits: Limits) -> Prompt:
    if not messages:
        raise InvalidRequest("messages", "at least one is required")
    if len(messages) > limits.max_messages:
        raise InvalidRequest("messages", f"at most {limits.max_messages}, has {len(messages)}")
    size = sum(len(m.content.encode()) for m in messages)
    if size > limits.max_prompt_bytes:
        raise InvalidRequest("messages", f"at most {limits.max_prompt_bytes} bytes of content, has {size}")
    return Prompt(tuple(_message(m, i) for i, m in enumerate(messages)))


def _message(message: pb.Message, index: int) -> Message:
    role = _member(ROLES, message.role, f"messages[{index}].role")
    if not message.content.strip():
        raise InvalidRequest(f"messages[{index}].content", "must not be blank")
    return Message(role, message.content)


def _options(message: pb.RoutingOptions, limits: Limits, remaining: float | None) -> Options:
    floor = _tokens(message, "min_thinking_tokens") or 0
    ceiling = _tokens(message, "max_thinking_tokens")
    if ceiling is not None and floor > ceiling:
        raise InvalidRequest("options.min_thinking_tokens", f"the floor {floor} lies above the ceiling {ceiling}")
    if len(message.conversation_id.encode()) > MAX_CONVERSATION_ID:
        raise InvalidRequest("options.conversation_id", f"at most {MAX_CONVERSATION_ID} bytes")
    return Options(
        target=_target(message, limits.default_target),
        floor=floor,
        ceiling=ceiling,
        max_latency=_latency(message, remaining),
        on_unmet=_member(ON_UNMET, message.on_unmet, "options.on_unmet"),
        rung=message.rung or None,
        conversation_id=message.conversation_id or None,
    )


def _target(message: pb.RoutingOptions, default: QualityTarget) -> QualityTarget:
    match message.WhichOneof("target"):
        case "max_loss":
            if not 0 <= message.max_loss <= 1:  # false for NaN too
                raise InvalidRequest("options.max_loss", "must lie in 0..1")
            return MaxLoss(message.max_loss)
        case "min_quality":
            if not 0 < message.min_quality <= 1:
                raise InvalidRequest("options.min_quality", "must lie above 0 and at most 1")
            return MinQuality(message.min_quality)
        case _:
            return default


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


def _member(members: Mapping[int, E], value: int, field: str) -> E:
    """The domain's member for an enum value. Raises InvalidRequest where there is none."""
    try:
        return members[value]
    except KeyError:
        raise InvalidRequest(field, "is required and must be one of the API's values") from None


def decision(value: Decision) -> pb.Decision:
    """A decision as told to the caller."""
    message = pb.Decision(
        decision_id=value.id,
        rung=value.rung.name,
        budget_tokens=value.rung.tokens,
        predicted_quality=value.predicted_quality,
        meets_target=value.choice.meets_target,
        certified=value.choice.certificate is not None,
        reason=value.choice.reason,
        source=SOURCES[value.source],
        model_version=value.model_version,
        forecasts=_forecasts(value),
    )
    if isinstance(value.target, MaxLoss):
        message.max_loss = value.target.value
    else:
        message.min_quality = value.target.value
    if value.choice.certificate is not None:
        message.certificate.CopyFrom(certificate(value.choice.certificate))
    return message


def _forecasts(value: Decision) -> list[pb.RungForecast]:
    if value.score is None:
        return []
    rungs = zip(value.ladder.rungs, value.score.quality, value.score.tokens, strict=True)
    return [_forecast(rung, quality, tokens) for rung, quality, tokens in rungs]


def _forecast(rung: ReasoningBudget, quality: float, tokens: TokenForecast | None) -> pb.RungForecast:
    if tokens is None:
        return pb.RungForecast(rung=rung.name, budget_tokens=rung.tokens, quality=quality, thinking_tokens_unknown=True)
    return pb.RungForecast(
        rung=rung.name,
        budget_tokens=rung.tokens,
        quality=quality,
        mean_thinking_tokens=tokens.mean,
        p50_thinking_tokens=tokens.p50,
        p90_thinking_tokens=tokens.p90,
        p99_thinking_tokens=tokens.p99,
    )


def certificate(value: Certificate) -> pb.Certificate:
    """A certificate as told to the caller."""
    return pb.Certificate(alpha=value.alpha, delta=value.delta, threshold=value.threshold, prompts=value.prompts)


def event(value: Decision | GenerationEvent) -> pb.GenerateResponse:
    """One event of a stream."""
    match value:
        case Decision():
            return pb.GenerateResponse(decision=decision(value))
        case ReasoningDelta(text):
            return pb.GenerateResponse(reasoning=text)
        case ContentDelta(text):
            return pb.GenerateResponse(content=text)
        case Completion():
            return pb.GenerateResponse(completion=completion(value))


def completion(value: Completion) -> pb.Completion:
    """The end of a stream."""
    return pb.Completion(
        finish_reason=FINISHES[value.finish],
        prompt_tokens=value.prompt_tokens,
        thinking_tokens=value.thinking_tokens,
        answer_tokens=value.answer_tokens,
        count_source=COUNT_SOURCES[value.count_source],
        enforcement=ENFORCEMENTS[value.enforcement],
        budget_tokens=value.budget.tokens,
        budget_violated=value.budget_violated,
        rung=value.budget.name,
        attempts=value.attempts,
    )
