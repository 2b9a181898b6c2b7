"""The composition root: what `assembly` builds is put together here, and closed in reverse."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from cachetools import TTLCache
from prometheus_client import CollectorRegistry, ProcessCollector

from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenants
from router.domain import MaxLoss
from router.errors import SettingsError
from router.events import Degraded
from router.extras import needs
from router.outcomes.e_process import Ledger
from router.outcomes.sqlite import SqliteOutcomes
from router.ports import Observer
from router.routing.chooser import Chooser, Conversation
from router.routing.explain import Explainer
from router.routing.hot_swap import HotSwap
from router.routing.router import BudgetRouter
from router.rpc.admin import AdminServicer
from router.rpc.boundary import Boundary
from router.rpc.identity import OperatorGuard, TenantGuard
from router.rpc.requests import Limits
from router.rpc.server import Health, RouterServer, Service
from router.rpc.servicer import BudgetRouterServicer
from router.rpc.tls import Credentials, TlsFiles, server_credentials
from router.scoring.memory_cache import MemoryCache
from router.serving import assembly, gauges
from router.serving.gauges import Gauges
from router.settings import Settings
from router.telemetry import metrics_server, tracing
from router.telemetry.log_writer import Defer
from router.telemetry.logs import LogLines, Observers
from router.telemetry.metrics import Metrics
from router.telemetry.tracing import Tracer

if TYPE_CHECKING:
    from router.admission.redis_quotas import RedisQuotas
    from router.outcomes.redis import RedisOutcomes
    from router.scoring.tiered_cache import TieredCache

OPERATORS = 16
"""Calls of the admin service under way at once."""

COLLECT_AFTER = 20_000
"""New objects from which the collector looks for what is unreachable; Python's 700 are there after a few requests."""

FOLLOW_SECONDS = 2.0
PINNED_CONVERSATIONS, PINNED_SECONDS = 100_000, 3_600.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where calls are accepted; `admin` is None where that service is closed."""

    port: int
    admin: int | None


async def serve(settings: Settings, announce: Callable[[Ports], None], soon: Defer) -> None:
    """Run until SIGTERM or SIGINT, then drain.

    Args:
        announce: told the ports once calls are accepted.
        soon: builds log lines a moment later, as `LogWriter.soon` does.

    Raises:
        ArtifactError: the model bundle or the embedded model is unusable.
        SettingsError: an address can not be bound.
        BackendError: the engine does not come up, or holds no budget.
        OutcomeLogError: the outcome log can not be opened.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, soon) as ports:
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look through it again and again
        gc.set_threshold(COLLECT_AFTER)
        announce(ports)
        await stop.wait()
        structlog.get_logger().info("draining", seconds=settings.drain_seconds)


@asynccontextmanager
async def running(settings: Settings, soon: Defer) -> AsyncIterator[Ports]:
    """The whole service, started; drained and closed on the way out."""
    async with AsyncExitStack() as stack:
        figures = CollectorRegistry()
        ProcessCollector(registry=figures)
        observers: list[Observer] = [LogLines(soon), Metrics(figures)]
        tracer = _tracer(settings, observers, stack)
        observer = Observers(observers)
        cache = assembly.score_cache(settings, observer, stack)
        ledger = Ledger(settings.audit_file)
        built = [
            await assembly.served_profile(settings, served, cache, ledger, observer, stack)
            for served in settings.served
        ]
        outcomes = assembly.outcome_log(settings, observer)
        stack.push_async_callback(outcomes.close)
        pins: TTLCache[Conversation, int] = TTLCache(PINNED_CONVERSATIONS, PINNED_SECONDS)
        audit = assembly.auditor(
            settings, ledger, observer, lambda model, version: router.suspend(model, version), stack
        )
        profiles = [profile for profile, _ in built]
        tenants = assembly.known_tenants(settings, observer, stack)
        queue = FairQueue(settings.capacity, settings.queue_seconds)
        quotas = assembly.quotas(settings, observer, stack)
        admission = Admission(tenants, queue, quotas, observer)
        router = BudgetRouter(profiles, tenants, outcomes, observer, Chooser(pins, settings.explore), admission, audit)
        swaps = {}
        for served, (profile, of) in zip(settings.served, built, strict=True):
            swaps[profile.model] = HotSwap(
                served.artifact, profile.model, of, router, observer, settings.shadow, MaxLoss(settings.max_loss)
            )
            assembly.in_background(swaps[profile.model].follow(), stack)
        limits = Limits(settings.max_messages, settings.max_prompt_bytes, MaxLoss(settings.max_loss))
        servicer = BudgetRouterServicer(router, Explainer(router, outcomes), limits)
        admin = AdminServicer(router, swaps, cache.flush)

        async def health() -> dict[str, bool]:
            """Of the service, and of everything that it depends on."""
            away = {name: not failing() for name, failing in failures.items()}
            return {**await router.health(), **away}

        failures = _failures(cache, quotas, outcomes)
        now = Gauges(router, queue, admission, failures)
        figures.register(now)
        stack.callback(metrics_server.serve(settings.metrics_listen, figures))
        if settings.workers > 1:
            assembly.in_background(gauges.mirrored(now), stack)
            if not settings.audit:
                assembly.in_background(_follow_audit_ledger(ledger, router, observer), stack)
        yield await _listen(
            settings, Service.routing(servicer), Service.admin(admin), tenants, health, observer, tracer, stack
        )


async def _follow_audit_ledger(ledger: Ledger, router: BudgetRouter, observer: Observer) -> None:
    """Of several workers one audits; what alarms there counts for all."""
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        try:
            ledger.read()
        except SettingsError as error:
            observer(Degraded("audit", str(error)))
        for profile in router.served_models:
            if ledger.alarmed(profile.bundle.version) and not profile.policy.suspended:
                router.suspend(profile.model, profile.bundle.version)


async def _listen(
    settings: Settings,
    routing: Service,
    admin: Service,
    tenants: Tenants,
    health: Health,
    observer: Observer,
    tracer: Tracer,
    stack: AsyncExitStack,
) -> Ports:
    """Accept calls, until the stack is left and those under way have ended."""

    def tls() -> Credentials | None:
        """For one server: gRPC hands the first certificate of credentials to one alone."""
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        files = TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        return server_credentials(files, lambda error: observer(Degraded("tls", error)))

    boundary = Boundary(TenantGuard(tenants), settings.max_streams, observer, tracer)
    shared = settings.workers > 1
    servers = [RouterServer(routing, boundary, settings.listen, tls(), health, shared, settings.connection_seconds)]
    if token := settings.admin_token.get_secret_value():
        boundary = Boundary(OperatorGuard(token), OPERATORS, observer, tracer)
        servers.append(RouterServer(admin, boundary, settings.admin_listen, tls(), health, shared))
    for server in servers:
        await server.start()
        stack.push_async_callback(server.drain, settings.drain_seconds)
    return Ports(servers[0].port, servers[1].port if len(servers) > 1 else None)


def _failures(
    cache: "MemoryCache | TieredCache", quotas: "MemoryQuotas | RedisQuotas", outcomes: "SqliteOutcomes | RedisOutcomes"
) -> dict[str, Callable[[], bool]]:
    """By name, what may fail beside the backends, and whether it does so now."""
    shared = {"cache": cache.breaker, "quotas": quotas.breaker}
    failures: dict[str, Callable[[], bool]] = {"outcomes": lambda: outcomes.failing}
    for name, breaker in shared.items():
        if breaker is not None:
            failures[name] = lambda breaker=breaker: breaker.is_open  # type: ignore[misc]
    return failures


def _tracer(settings: Settings, observers: list[Observer], stack: AsyncExitStack) -> Tracer:
    """What traces calls; it watches, too."""
    if not settings.otlp_url:
        return tracing.passed_on
    with needs("otel"):
        from router.telemetry import opentelemetry
    traces = opentelemetry.Traces(opentelemetry.exporter(settings.otlp_url))
    stack.callback(traces.close)
    observers.append(traces)
    return traces.span
