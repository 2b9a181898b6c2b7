"""What a caller asks for: a prompt, a quality target, and bounds."""

from dataclasses import dataclass
from enum import Enum

from router.domain.conversation import Prompt


@dataclass(frozen=True, slots=True)
class MaxLoss:
    """Relative target: at most this much P(correct) below the top rung.

    Attributes:
        per_prompt: by each prompt's own forecast, not on average over prompts.
    """

    value: float
    per_prompt: bool = False


@dataclass(frozen=True, slots=True)
class MinQuality:
    """Absolute target: at least this P(correct)."""

    value: float


QualityTarget = MaxLoss | MinQuality

DEFAULT_MAX_LOSS = 0.02
"""The quality target wherever none is named: of requests, of plans and reports, of retraining."""


class OnUnmet(Enum):
    """What to do when no rung is predicted to meet the target."""

    TOP_RUNG = "top_rung"
    CHEAPEST_NEAR_BEST = "cheapest_near_best"
    REJECT = "reject"


class ReasoningEffort(Enum):
    """How long a model may think, in words; least first."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class RoutingOptions:
    """The routing options of a request. Tokens are thinking tokens, `max_latency` is in seconds.

    Attributes:
        target_relaxation: P(correct) by which the target was relaxed because the service is overloaded.
        latency_of_call: the request names no `max_latency`; it is the time that its call has left.
        escalate: a conversation goes up one rung after a step that went wrong.
        reasoning_effort: a ceiling in words; what it is worth depends on the ladder.
    """

    target: QualityTarget
    min_thinking_tokens: int = 0
    max_thinking_tokens: int | None = None
    max_latency: float | None = None
    on_unmet: OnUnmet = OnUnmet.TOP_RUNG
    rung: str | None = None
    conversation_id: str | None = None
    target_relaxation: float = 0.0
    latency_of_call: bool = False
    escalate: bool = False
    reasoning_effort: ReasoningEffort | None = None


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """One prompt to choose a budget for."""

    prompt: Prompt
    options: RoutingOptions
    tenant: str
    model: str

    @property
    def session(self) -> str | None:
        """Equal for requests that share a prefix; None where no other one does."""
        # With the tenant: two of them may use the same id, and share no prefix.
        talk = self.options.conversation_id
        return f"{self.tenant}/{talk}" if talk else None
