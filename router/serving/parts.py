"""The parts of the service. `assembly` builds them from settings, `app` wires and runs them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry

from router.admission.fair_queue import FairQueue
from router.admission.tenants import Tenants
from router.bundle.manifest import Bundle
from router.circuit_breaker import Breaker
from router.domain import BudgetLadder
from router.envoy.gateway import Gateway
from router.learning.learner import Learner
from router.outcomes.audit import Auditor
from router.outcomes.e_process import Ledger
from router.ports import DecisionArchive, Observer, OutcomeLog, Pins, Quotas, ScoreCache
from router.requests.limits import Limits
from router.routing.chooser import Chooser
from router.routing.hot_swap import Trial
from router.routing.served_model import ServedModel
from router.rpc.tls import Certificates
from router.serving.follow import Followed
from router.serving.keeper import Work
from router.serving.learned import Learned
from router.telemetry.tracing import Tracer


class Cache(ScoreCache, Protocol):
    """A score cache as the service holds it."""

    @property
    def breaker(self) -> Breaker | None:
        """The breaker around a shared level; None where nothing can fail."""
        ...

    async def flush(self) -> None:
        """Drop all scores. Raises CacheError."""
        ...


class ServiceQuotas(Quotas, Protocol):
    """Quotas as the service holds them."""

    @property
    def breaker(self) -> Breaker | None:
        """The breaker around shared quotas; None where nothing can fail."""
        ...


class ServicePins(Pins, Protocol):
    """What conversations keep, as the service holds it."""

    @property
    def breaker(self) -> Breaker | None:
        """The breaker around shared pins; None where nothing can fail."""
        ...


class Outcomes(OutcomeLog, DecisionArchive, Protocol):
    """An outcome log as the service holds it."""

    @property
    def failing(self) -> bool:
        """True while records cannot be written."""
        ...


@dataclass(frozen=True)
class Model:
    """A served model.

    Attributes:
        artifact: its bundle, or the registry that names it.
        served: the model with the bundle that the service starts with.
        with_bundle: makes the served model with another bundle; blocks, and raises ArtifactError.
        trial: tries another bundle outside this process first, as HotSwap's.
        shadow: prompts that another bundle scores beside the served one before a swap.
        learned: the ladder that bundles are learned about; None = none are learned.
    """

    artifact: Path
    served: ServedModel
    with_bundle: Callable[[Bundle], ServedModel]
    trial: Trial
    shadow: int = 0
    learned: BudgetLadder | None = None


@dataclass(frozen=True)
class Endpoints:
    """Addresses of the servers, and how they accept calls.

    Attributes:
        listen: HOST:PORT of the routing service; port 0 takes a free one.
        http_listen: HOST:PORT of the OpenAI-compatible HTTP API; empty = none.
        admin_listen: HOST:PORT of the admin service.
        admin_token: bearer token of the admin service, which is closed without one.
        health_listen: HOST:PORT that answers health checks alone, in plaintext; empty = none.
        metrics_listen: HOST:PORT of the Prometheus endpoint; empty = none.
        certificates: certificates for TLS handshakes; None = plaintext.
        shared: other processes listen on the same port, and their supervisor serves the metrics.
        connection_seconds: age of a connection at which clients are asked to reconnect; 0 = never.
        window_seconds: deltas of a stream that come within it leave together; 0 = each leaves as it comes.
        max_streams: calls of the routing service under way at once.
        max_message_bytes: size of the largest message to the routing service.
        max_large_bytes: bytes of its large messages under way at once.
        drain_seconds: time that streams have to end on the way out.
    """

    listen: str
    http_listen: str
    admin_listen: str
    admin_token: str = field(repr=False)
    health_listen: str
    metrics_listen: str
    certificates: Certificates | None
    shared: bool
    connection_seconds: float
    window_seconds: float
    max_streams: int
    max_message_bytes: int
    max_large_bytes: int
    drain_seconds: float


@dataclass(frozen=True)
class Parts:
    """Everything on the path of a request. A test builds the parts and replaces some with `dataclasses.replace`.

    Attributes:
        models: the first answers, the others take over where it is down or they are named.
        audit: None where audits are off.
        learner: None where nothing is learned.
        learned: how far that has come.
        limits: bounds of a request.
        observer: sees all records; the parts that need it hold the same one.
        figures: the metrics of the Prometheus endpoint.
        gateway: what a gateway may rely on; None = none asks.
        followed: files that are read again when they change.
        background: tasks that run beside the requests, by name.
    """

    models: Sequence[Model]
    cache: Cache
    outcomes: Outcomes
    tenants: Tenants
    queue: FairQueue
    quotas: ServiceQuotas
    chooser: Chooser
    pins: ServicePins
    ledger: Ledger
    audit: Auditor | None
    learner: Learner | None
    learned: Learned
    limits: Limits
    observer: Observer
    tracer: Tracer
    figures: CollectorRegistry
    endpoints: Endpoints
    gateway: Gateway | None
    followed: Sequence[Followed]
    background: Mapping[str, Work]

    def failing(self) -> Mapping[str, bool]:
        """For each dependency beside the backends, by name: does it fail now?"""
        breakers = {"cache": self.cache.breaker, "pins": self.pins.breaker, "quotas": self.quotas.breaker}
        open_ = {name: breaker.is_open for name, breaker in breakers.items() if breaker is not None}
        return {"outcomes": self.outcomes.failing, **open_}
