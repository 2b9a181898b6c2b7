"""Records for observers: decisions, answers, failures that the service survived, swapped bundles, audits."""

from dataclasses import dataclass

from router.domain import Completion, Decision, RouteRequest


@dataclass(frozen=True, slots=True)
class Decided:
    """Record: a decision was made for a request of `tenant` in `seconds`. It holds no prompt, since records wait."""

    tenant: str
    decision: Decision
    seconds: float


@dataclass(frozen=True, slots=True)
class Generated:
    """Record: a stream ended with `completion`; times in seconds from the request."""

    request: RouteRequest
    decision: Decision
    completion: Completion
    first_token_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class StreamAborted:
    """Record: a stream did not reach its end; `cause` is "backend", or "caller" when the caller left."""

    request: RouteRequest
    decision: Decision
    cause: str


@dataclass(frozen=True, slots=True)
class CallCompleted:
    """Record: a call ended with a status, by its name in gRPC."""

    method: str
    code: str


@dataclass(frozen=True, slots=True)
class GatewayAnswered:
    """Record: a gateway got its answer about a request.

    Attributes:
        outcome: "decided", "failed_open" (the request goes on at the engine's default) or "refused".
        cause: what kept it from being decided: the name of an error; "" where it was decided.
    """

    outcome: str
    cause: str


@dataclass(frozen=True, slots=True)
class GatewayShown:
    """Record: a gateway has shown a response.

    Attributes:
        outcome: "counted", "no_usage" (it ended, and does not say how much was thought), "cut" (no end was read) or
            "unknown" (no decision was found).
    """

    outcome: str


@dataclass(frozen=True, slots=True)
class RequestShed:
    """Record: a tenant's request was refused for want of room; `cause` as in Overloaded."""

    tenant: str
    cause: str


@dataclass(frozen=True, slots=True)
class Degraded:
    """Record: a dependency failed and the request went on without it."""

    dependency: str
    error: str


@dataclass(frozen=True, slots=True)
class EngineLost:
    """Record: a health check has found that an engine cannot serve; it is left out until it can."""

    engine: str
    error: str


@dataclass(frozen=True, slots=True)
class EngineBack:
    """Record: an engine that was lost serves again."""

    engine: str


@dataclass(frozen=True, slots=True)
class RecordsLost:
    """Record: records of the outcome log are lost; `cause` is "unwritable", "full" (too many waited) or "exit"."""

    cause: str
    records: int
    error: str


@dataclass(frozen=True, slots=True)
class Swapped:
    """Record: a model is served with another bundle from now on; versions are digests."""

    model: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Shadowed:
    """Record: a candidate bundle has scored beside the served one.

    Attributes:
        prompts: number of prompts that both scored; `failed` more had no score from the candidate.
        agreement: share of the prompts on which both choose the same rung.
        saved: share of the forecast thinking tokens that the candidate would not spend.
    """

    model: str
    version: str
    prompts: int
    failed: int
    agreement: float
    saved: float


@dataclass(frozen=True, slots=True)
class Audited:
    """Record: an answer was compared with the top rung's.

    Attributes:
        loss: correctness at the top rung less that of the answer given, -1..1.
        wealth: evidence against the certificate for `alpha` so far; 1 = none.
        alarmed: the evidence is enough to reject the certificate.
        thinking_tokens: of the answer, and at the top rung; None where one of them is unknown.
    """

    model: str
    alpha: float
    loss: float
    wealth: float
    alarmed: bool
    thinking_tokens: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Taught:
    """Record: what became of a request that was drawn to learn from.

    Attributes:
        outcome: "learned"; "other tokens" where the thought cannot be cut as serving cuts it, or "failed", and then the
            answers behind cuts count as lost; or why it taught nothing: "busy", "allowance", "unfinished", "no steps",
            "uncounted".
        tokens: what the answers at other rungs and the judge have cost.
    """

    model: str
    decision_id: str
    outcome: str
    tokens: int


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """Record: a background task failed and goes on, or ended and is started again; `error` is None when it returned."""

    task: str
    error: Exception | None


Record = (
    CallCompleted
    | Decided
    | GatewayAnswered
    | GatewayShown
    | Generated
    | StreamAborted
    | Degraded
    | EngineLost
    | EngineBack
    | RecordsLost
    | RequestShed
    | Swapped
    | Shadowed
    | Audited
    | Taught
    | TaskFailed
)
