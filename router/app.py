"""The composition root: every concrete class is built here, and closed in reverse.

The clients of Redis and HTTP are imported where they are chosen: the default start need not pay their 0.4 s.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog
from cachetools import TTLCache
from prometheus_client import CollectorRegistry, start_http_server

from router import artifact, doctor, registry, tenants
from router.adapters.backends.pocket import PocketBackend, PocketModel
from router.adapters.classifier import OnnxClassifier
from router.adapters.memory_cache import MemoryCache
from router.adapters.memory_quotas import MemoryQuotas
from router.adapters.outcome_record import PromptNames
from router.adapters.sqlite_outcomes import SqliteOutcomes
from router.admission import Admission
from router.artifact import Bundle
from router.audit import Agreement, Allowance, Auditor, Ledger
from router.cache_key import ScoreKeys
from router.choosing import Chooser, Conversation
from router.doctor import Finding
from router.domain import MaxLoss
from router.errors import BackendError, BackendUnavailable, CacheError, SettingsError
from router.explain import Explainer
from router.fair_queue import FairQueue
from router.hot_swap import HotSwap
from router.observe import LogLines, Metrics, Observers
from router.policy import LatencyProfile, Policy
from router.ports import Observer, Quotas, ScoreCache, Verifier
from router.profile import Profile
from router.records import Degraded
from router.routing import SUSPENDED, BudgetRouter
from router.rpc.admin import AdminServicer
from router.rpc.boundary import Boundary
from router.rpc.identity import OperatorGuard, TenantGuard
from router.rpc.requests import Limits
from router.rpc.server import RouterServer, Service
from router.rpc.servicer import BudgetRouterServicer
from router.rpc.tls import TlsFiles, server_credentials
from router.scoring import Scorer
from router.settings import Served, Settings
from router.tenants import Tenants

if TYPE_CHECKING:
    from router.adapters.backends.replicas import Replica, Replicas
    from router.adapters.redis_cache import RedisCache
    from router.adapters.redis_outcomes import RedisOutcomes
    from router.adapters.tiered_cache import TieredCache

OPERATORS = 16
"""Calls of the admin service under way at once."""

PINNED_CONVERSATIONS, PINNED_SECONDS = 100_000, 3_600.0
WAIT_SECONDS = 1.0
OUTCOMES_TIMEOUT = 2.0
"""Seconds that a Redis may take to keep an outcome; callers of ReportOutcome wait for it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where calls are accepted; `admin` is None where that service is closed."""

    port: int
    admin: int | None


async def serve(settings: Settings, announce: Callable[[Ports], None]) -> None:
    """Run until SIGTERM or SIGINT, then drain; `announce` is told the ports once calls are accepted.

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
    async with running(settings) as ports:
        announce(ports)
        await stop.wait()
        structlog.get_logger().info("draining", seconds=settings.drain_seconds)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Ports]:
    """The whole service, started; drained and closed on the way out."""
    async with AsyncExitStack() as stack:
        figures = CollectorRegistry()
        observer = Observers([LogLines(), Metrics(figures)])
        cache = _cache(settings, observer, stack)
        ledger = Ledger(settings.audit_file)
        built = [await _profile(settings, served, cache, ledger, observer, stack) for served in settings.served]
        outcomes = _outcomes(settings, observer)
        stack.push_async_callback(outcomes.close)
        pins: TTLCache[Conversation, int] = TTLCache(PINNED_CONVERSATIONS, PINNED_SECONDS)
        audit = _auditor(settings, ledger, observer, lambda model, version: router.suspend(model, version), stack)
        profiles = [profile for profile, _ in built]
        tenants = _tenants(settings, observer, stack)
        queue = FairQueue(settings.capacity, settings.queue_seconds)
        admission = Admission(tenants, queue, _quotas(settings, observer, stack), observer)
        router = BudgetRouter(profiles, tenants, outcomes, observer, Chooser(pins, settings.explore), admission, audit)
        swaps = {}
        for served, (profile, of) in zip(settings.served, built, strict=True):
            swaps[profile.model] = HotSwap(
                served.artifact, profile.model, of, router, observer, settings.shadow, MaxLoss(settings.max_loss)
            )
            _in_background(swaps[profile.model].follow(), stack)
        limits = Limits(settings.max_messages, settings.max_prompt_bytes, MaxLoss(settings.max_loss))
        servicer = BudgetRouterServicer(router, Explainer(router, outcomes), limits)
        admin = AdminServicer(router, swaps, cache.flush)
        _serve_metrics(settings, figures, stack)
        yield await _listen(settings, Service.routing(servicer), Service.admin(admin), tenants, router, observer, stack)


async def _listen(
    settings: Settings,
    routing: Service,
    admin: Service,
    tenants: Tenants,
    router: BudgetRouter,
    observer: Observer,
    stack: AsyncExitStack,
) -> Ports:
    """Accept calls, until the stack is left and those under way have ended."""
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        files = TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        tls = server_credentials(files, lambda error: observer(Degraded("tls", error)))
    boundary = Boundary(TenantGuard(tenants), settings.max_streams, observer)
    servers = [RouterServer(routing, boundary, settings.listen, tls, router.health)]
    if token := settings.admin_token.get_secret_value():
        boundary = Boundary(OperatorGuard(token), OPERATORS, observer)
        servers.append(RouterServer(admin, boundary, settings.admin_listen, tls, router.health))
    for server in servers:
        await server.start()
        stack.push_async_callback(server.drain, settings.drain_seconds)
    return Ports(servers[0].port, servers[1].port if len(servers) > 1 else None)


async def examine(settings: Settings) -> list[Finding]:
    """Check what the service would run with: bundles, cache and backends."""
    findings = []
    async with AsyncExitStack() as stack:
        if settings.redis_url:
            findings.append(await _examine_redis(settings, stack))
        for served in settings.served:
            bundle = artifact.load(registry.locate(served.artifact))
            OnnxClassifier(bundle)
            rungs = ", ".join(rung.name for rung in bundle.manifest.ladder.rungs)
            findings.append(Finding("model bundle", True, f"{bundle.version[:12]}, rungs {rungs}"))
            findings += await _examine_backend(settings, served, stack)
    return findings


async def _examine_backend(settings: Settings, served: Served, stack: AsyncExitStack) -> list[Finding]:
    """Every way to hold budgets on its own, then which one is served."""
    if served.backend == "pocket":
        backend, _ = await _backend(settings, served, stack)
        return [finding async for finding in doctor.examine(backend)]
    findings = []
    for replica in _engines(settings, served, stack):
        for way in replica.backend.ways:
            name = way.enforcement.value
            findings += [replace(f, check=f"{name}: {f.check}", needed=False) async for f in doctor.examine(way.alone)]
        try:
            findings.append(Finding(f"enforcement of {replica.name}", True, await replica.backend.prove()))
        except BackendError as error:
            findings.append(Finding(f"enforcement of {replica.name}", False, str(error)))
    return findings


async def _examine_redis(settings: Settings, stack: AsyncExitStack) -> Finding:
    cache = _redis(settings, stack)
    try:
        await cache.get_many([b"doctor"])
    except CacheError as error:
        return Finding("Redis", False, str(error))
    return Finding("Redis", True, "answers")


async def _profile(
    settings: Settings,
    served: Served,
    cache: ScoreCache,
    ledger: Ledger,
    observer: Observer,
    stack: AsyncExitStack,
) -> tuple[Profile, Callable[[Bundle], Profile]]:
    """A served model, and how to serve it with another bundle."""
    bundle = artifact.load(registry.locate(served.artifact))
    backend, fingerprint = await _backend(settings, served, stack)
    latency = LatencyProfile(settings.first_token_seconds, settings.token_seconds, settings.answer_tokens)
    secret = settings.cache_secret.get_secret_value().encode()

    def of(bundle: Bundle) -> Profile:
        """Certificates count only for the backend that they were proved on."""
        manifest = bundle.manifest
        certificates, absolute = manifest.certificates, manifest.absolute
        if manifest.backend_fingerprint != fingerprint:
            structlog.get_logger().warning(
                "uncertified", bundle_is_about=manifest.backend_fingerprint, backend=fingerprint, effect="top rung only"
            )
            certificates, absolute = (), ()
        keys = ScoreKeys(secret, bundle.version, manifest.ladder)
        scorer = Scorer(OnnxClassifier(bundle), keys, cache, observer)
        suspended = SUSPENDED if ledger.alarmed(bundle.version) else ""
        policy = Policy(manifest.ladder, certificates, latency, absolute, suspended)
        return Profile(served.model, bundle, policy, scorer, backend, backend.enforcement, fingerprint)

    return of(bundle), of


async def _backend(settings: Settings, served: Served, stack: AsyncExitStack) -> "tuple[PocketBackend | Replicas, str]":
    """What answers, proved to hold budgets, and the fingerprint that a bundle must be about. Raises BackendError."""
    if served.backend == "pocket":
        reasoner = PocketModel.load(settings.pocket_model)
        pocket = PocketBackend(reasoner, settings.pocket_threads)
        stack.callback(pocket.close)
        return pocket, reasoner.fingerprint
    from router.adapters.backends.replicas import Replicas

    replicas = Replicas(_engines(settings, served, stack), settings.backend_hedge or None)
    deadline = time.monotonic() + settings.backend_wait
    while True:
        try:
            return replicas, await replicas.prove()
        except BackendUnavailable as error:
            if time.monotonic() > deadline:
                raise
            structlog.get_logger().warning("waiting", backend=served.url, error=str(error))
            await asyncio.sleep(WAIT_SECONDS)


def _engines(settings: Settings, served: Served, stack: AsyncExitStack) -> "list[Replica]":
    """Every replica, not proved yet."""
    from router.adapters.backends.connect import Connection, connect
    from router.adapters.backends.engine import Timeouts
    from router.adapters.backends.replicas import Replica
    from router.adapters.backends.two_phase import Markers

    timeouts = Timeouts(
        first=settings.backend_first_timeout, idle=settings.backend_idle_timeout, total=settings.backend_timeout
    )
    connection = Connection(
        served.backend,
        served.url,
        served.model,
        served.key.get_secret_value(),
        settings.backend_enforcement,
        settings.backend_unenforced == "warn",
        settings.backend_images,
        Markers(settings.think_start, settings.think_end),
        timeouts,
        settings.max_streams,
    )
    urls = [url.strip() for url in served.url.split(",")]
    return [Replica(url, connect(replace(connection, url=url), doctor.enforced, stack)) for url in urls]


def _outcomes(settings: Settings, observer: Observer) -> "SqliteOutcomes | RedisOutcomes":
    secret = settings.cache_secret.get_secret_value().encode()
    if not settings.outcomes_url:
        return SqliteOutcomes(settings.outcomes, observer, texts=settings.log_prompts, secret=secret)
    from router.adapters import redis_client
    from router.adapters.redis_outcomes import RedisOutcomes

    redis = redis_client.connect(settings.outcomes_url, OUTCOMES_TIMEOUT)
    names = PromptNames(secret, settings.log_prompts)
    return RedisOutcomes(redis, observer, names, settings.outcomes_length, OUTCOMES_TIMEOUT)


def _tenants(settings: Settings, observer: Observer, stack: AsyncExitStack) -> Tenants:
    if settings.tenants is None:
        return Tenants(tenants.DEFAULT)
    known = Tenants(tenants.load(settings.tenants))
    _in_background(known.follow(settings.tenants, observer), stack)
    return known


def _quotas(settings: Settings, observer: Observer, stack: AsyncExitStack) -> Quotas:
    near = MemoryQuotas()
    if not settings.redis_url:
        return near
    from router.adapters import redis_client
    from router.adapters.redis_quotas import RedisQuotas

    redis = redis_client.connect(settings.redis_url, settings.redis_timeout)
    shared = RedisQuotas(redis, settings.redis_timeout, near, observer)
    stack.push_async_callback(shared.close)
    _in_background(shared.renew(), stack)
    return shared


def _auditor(
    settings: Settings, ledger: Ledger, observer: Observer, suspend: Callable[[str, str], None], stack: AsyncExitStack
) -> Auditor | None:
    if not settings.audit:
        return None
    verifier: Verifier = Agreement()
    if settings.verifier_url:
        from router.adapters.http_verifier import HttpVerifier

        verifier = http = HttpVerifier(settings.verifier_url, settings.backend_timeout)
        stack.push_async_callback(http.close)
    auditor = Auditor(settings.audit, Allowance(settings.audit_tokens), verifier, ledger, observer, suspend)
    stack.push_async_callback(auditor.close)
    return auditor


def _in_background(work: Coroutine[None, None, None], stack: AsyncExitStack) -> None:
    """Run it until the stack is left."""
    stack.callback(asyncio.create_task(work).cancel)


def _cache(settings: Settings, observer: Observer, stack: AsyncExitStack) -> "MemoryCache | TieredCache":
    near = MemoryCache(settings.cache_entries, settings.cache_bytes)
    if not settings.redis_url:
        return near
    from router.adapters.tiered_cache import TieredCache

    tiered = TieredCache(near, _redis(settings, stack), observer)
    stack.push_async_callback(tiered.drain)
    _in_background(tiered.watch(), stack)
    return tiered


def _redis(settings: Settings, stack: AsyncExitStack) -> "RedisCache":
    from router.adapters import redis_client
    from router.adapters.redis_cache import RedisCache

    redis = redis_client.connect(settings.redis_url, settings.redis_timeout)
    cache = RedisCache(redis, settings.cache_ttl, settings.redis_timeout)
    stack.push_async_callback(cache.close)
    return cache


def _serve_metrics(settings: Settings, registry: CollectorRegistry, stack: AsyncExitStack) -> None:
    if not settings.metrics_listen:
        return
    host, _, port = settings.metrics_listen.rpartition(":")
    try:
        server, _ = start_http_server(int(port), host or "127.0.0.1", registry)
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(f"BUDGET_ROUTER_METRICS_LISTEN: can not listen there: {error}") from error
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
