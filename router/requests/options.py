"""Options of a choice, checked. They are named as in the proto file, whatever way they have come in."""

import math
from collections.abc import Mapping
from typing import Any

from router.domain import MaxLoss, MinQuality, OnUnmet, QualityTarget, RoutingOptions
from router.errors import InvalidRequest
from router.requests.names import checked_name


def routing_options(given: Mapping[str, Any], default: QualityTarget, remaining: float | None) -> RoutingOptions:
    """Checked options.

    Args:
        given: values by name, each of its type; what is not set is absent.
        default: the target where none is given.
        remaining: seconds until the caller stops waiting, which bound the latency; None = no bound.

    Raises:
        InvalidRequest: an option is wrong.
    """
    least, most = _tokens(given, "min_thinking_tokens") or 0, _tokens(given, "max_thinking_tokens")
    if most is not None and least > most:
        raise InvalidRequest("options.min_thinking_tokens", f"{least} is more than max_thinking_tokens, {most}")
    conversation = checked_name(given.get("conversation_id", ""), "options.conversation_id") or None
    escalate = given.get("escalate", False)
    if escalate and conversation is None:
        raise InvalidRequest("options.escalate", "needs a conversation_id: a request alone has no step before it")
    return RoutingOptions(
        target=_target(given, default),
        min_thinking_tokens=least,
        max_thinking_tokens=most,
        max_latency=_latency(given.get("max_latency"), remaining),
        latency_of_call=remaining is not None and "max_latency" not in given,
        on_unmet=given.get("on_unmet", OnUnmet.TOP_RUNG),
        rung=checked_name(given.get("rung", ""), "options.rung") or None,
        conversation_id=conversation,
        escalate=escalate,
        reasoning_effort=given.get("reasoning_effort"),
    )


def _target(given: Mapping[str, Any], default: QualityTarget) -> QualityTarget:
    per_prompt = given.get("per_prompt_target", False)
    if (loss := given.get("max_loss")) is not None:
        if not 0 <= loss <= 1:  # false for NaN too
            raise InvalidRequest("options.max_loss", "must lie in 0..1")
        return MaxLoss(abs(loss), per_prompt)  # -0 would be shown as such
    if (quality := given.get("min_quality")) is not None:
        if not 0 < quality <= 1:
            raise InvalidRequest("options.min_quality", "must lie above 0 and at most 1")
        return MinQuality(quality)
    return MaxLoss(default.value, per_prompt=True) if per_prompt and isinstance(default, MaxLoss) else default


def _tokens(given: Mapping[str, Any], name: str) -> int | None:
    value: int | None = given.get(name)
    if value is not None and value < 0:
        raise InvalidRequest(f"options.{name}", "must not be negative")
    return value


def _latency(seconds: float | None, remaining: float | None) -> float | None:
    if seconds is None:
        return remaining
    if not seconds > 0:
        raise InvalidRequest("options.max_latency", "must be positive")
    return min(seconds, math.inf if remaining is None else remaining)
