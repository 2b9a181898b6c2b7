"""What is told to whoever watches: a decision, an answer, a failure that was survived, another bundle, an audit."""

from dataclasses import dataclass

from router.domain import Completion, Decision, RouteRequest


@dataclass(frozen=True, slots=True)
class Decided:
    """Record: a decision was made for `request` in `seconds`."""

    request: RouteRequest
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
    """Record: a stream did not reach its end; `cause` is "backend" or "caller" (who left)."""

    request: RouteRequest
    decision: Decision
    cause: str


@dataclass(frozen=True, slots=True)
class CallCompleted:
    """Record: a call ended with a status, by its name in gRPC."""

    method: str
    code: str


@dataclass(frozen=True, slots=True)
class RequestShed:
    """Record: a tenant's request was not let in; `cause` as in Overloaded."""

    tenant: str
    cause: str


@dataclass(frozen=True, slots=True)
class Degraded:
    """Record: a dependency failed and the request went on without it."""

    dependency: str
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
        prompts: compared; `failed` ones come on top.
        agreement: share of them on which both choose the same rung.
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
        alarmed: it is not believed any more.
    """

    model: str
    alpha: float
    loss: float
    wealth: float
    alarmed: bool


Record = CallCompleted | Decided | Generated | StreamAborted | Degraded | RequestShed | Swapped | Shadowed | Audited
