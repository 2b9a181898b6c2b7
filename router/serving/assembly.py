"""Builds the parts of the service from settings; the stack that they are given closes them.

The clients of Redis, HTTP and Triton are imported where they are chosen: the default start need not pay their 0.4 s.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog
from cachetools import TTLCache
from prometheus_client import CollectorRegistry, ProcessCollector

from router.admission import tenants
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenants
from router.backends import canary
from router.backends.pocket import PocketBackend, PocketModel
from router.bundle import manifest, registry
from router.bundle.manifest import Bundle, Manifest
from router.domain import Certificate, MaxLoss
from router.errors import BackendUnavailable, ClassifierError, DependencyError
from router.extras import needs
from router.outcomes.audit import Auditor, TokenBucket
from router.outcomes.e_process import Ledger
from router.outcomes.rows import PromptHasher
from router.outcomes.sqlite import SqliteOutcomes
from router.outcomes.verifiers import Agreement
from router.ports import Classifier, Observer, ScoreCache, Verifier
from router.routing.chooser import Chooser
from router.routing.policy import LatencyProfile, Policy
from router.routing.router import SUSPENDED
from router.routing.served_model import ServedModel
from router.rpc.requests import Limits
from router.rpc.tls import Certificates, TlsFiles
from router.scoring.batching import Batching
from router.scoring.cache_key import ScoreKeys
from router.scoring.memory_cache import MemoryCache
from router.scoring.onnx import Device, OnnxClassifier
from router.scoring.scorer import Scorer
from router.serving.follow import Followed, file_stamp
from router.serving.keeper import Work
from router.serving.parts import Cache, Endpoints, Model, Parts, SharedQuotas
from router.settings import Served, Settings
from router.telemetry import tracing
from router.telemetry.log_writer import Defer
from router.telemetry.logs import LogLines, Observers
from router.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from router.backends.connect import Connection
    from router.backends.replicas import Replica, Replicas
    from router.outcomes.redis import RedisOutcomes
    from router.scoring.kserve import Triton
    from router.scoring.redis_cache import RedisCache
    from router.scoring.triton import TritonClassifier
    from router.telemetry.opentelemetry import Traces

T = TypeVar("T")

WAIT_SECONDS = 1.0
"""Pause between two looks at a dependency that is not up yet."""

OUTCOMES_TIMEOUT = 2.0
"""Seconds for a Redis to keep an outcome; callers of ReportOutcome wait for it."""

PINNED_CONVERSATIONS, PINNED_SECONDS = 100_000, 3_600.0
"""Conversations that keep their rung, and for how long after their last turn."""


async def build(settings: Settings, defer: Defer, stack: AsyncExitStack) -> Parts:
    """All parts of the service; none of them has started yet.

    Raises:
        ArtifactError, BackendError, OutcomeLogError, SettingsError: a part cannot be built.
    """
    figures = CollectorRegistry()
    ProcessCollector(registry=figures)
    traces = tracer(settings, stack)
    observer = Observers([LogLines(defer), Metrics(figures), *([] if traces is None else [traces])])
    background: dict[str, Work] = {}
    cache = score_cache(settings, observer, stack, background)
    ledger = Ledger(settings.audit_file)
    models = [await model(settings, served, cache, ledger, observer, stack) for served in settings.served]
    outcomes = outcome_log(settings, observer)
    stack.push_async_callback(outcomes.close)
    known, certs = known_tenants(settings), certificates(settings)
    return Parts(
        models=models,
        cache=cache,
        outcomes=outcomes,
        tenants=known,
        queue=FairQueue(settings.capacity, settings.queue_seconds),
        quotas=quotas(settings, observer, stack, background),
        chooser=Chooser(TTLCache(PINNED_CONVERSATIONS, PINNED_SECONDS), settings.explore),
        ledger=ledger,
        audit=auditor(settings, ledger, observer, stack),
        limits=Limits(settings.max_messages, settings.max_prompt_bytes, MaxLoss(settings.max_loss)),
        observer=observer,
        tracer=tracing.passed_on if traces is None else traces.span,
        figures=figures,
        endpoints=endpoints(settings, certs),
        followed=followed(settings, known, certs),
        background=background,
    )


def endpoints(settings: Settings, certs: Certificates | None) -> Endpoints:
    """Where and how calls are accepted."""
    return Endpoints(
        listen=settings.listen,
        admin_listen=settings.admin_listen,
        admin_token=settings.admin_token.get_secret_value(),
        metrics_listen=settings.metrics_listen,
        certificates=certs,
        shared=settings.workers > 1,
        connection_seconds=settings.connection_seconds,
        max_streams=settings.max_streams,
        drain_seconds=settings.drain_seconds,
    )


def tracer(settings: Settings, stack: AsyncExitStack) -> "Traces | None":
    """Traces for a collector; None where none is named. Raises MissingExtra."""
    if not settings.otlp_url:
        return None
    with needs("otel"):
        from router.telemetry import opentelemetry
    traces = opentelemetry.Traces(opentelemetry.exporter(settings.otlp_url))
    stack.callback(traces.close)
    return traces


async def model(
    settings: Settings, served: Served, cache: ScoreCache, ledger: Ledger, observer: Observer, stack: AsyncExitStack
) -> Model:
    """A served model. Raises ArtifactError, BackendError, ClassifierError, SettingsError."""
    bundle = manifest.load(registry.locate(served.artifact))
    server = await ready(triton(settings, served, stack), settings.backend_wait)
    backend, fingerprint = await served_backend(settings, served, observer, stack)
    latency = LatencyProfile(settings.first_token_seconds, settings.token_seconds, settings.answer_tokens)
    secret = settings.cache_secret.get_secret_value().encode()
    make = partial(classifier, device=settings.classifier_device, server=server)
    with_bundle = _WithBundle(served.model, backend, fingerprint, latency, secret, make, cache, ledger, observer)
    return Model(served.artifact, with_bundle(bundle), with_bundle, settings.shadow)


@dataclass(frozen=True)
class _WithBundle:
    """Makes a served model of a bundle; everything else stays as it is when the bundle is swapped."""

    model: str
    backend: "PocketBackend | Replicas"
    fingerprint: str
    latency: LatencyProfile
    secret: bytes
    classifier: Callable[[Bundle], Classifier]
    cache: ScoreCache
    ledger: Ledger
    observer: Observer

    def __call__(self, bundle: Bundle) -> ServedModel:
        """The served model; blocks while the graph loads. Raises ArtifactError, SettingsError."""
        relative, absolute = self._certificates(bundle.manifest)
        keys = ScoreKeys(self.secret, bundle.version, bundle.manifest.ladder)
        scorer = Scorer(self.classifier(bundle), keys, self.cache, self.observer)
        suspended = SUSPENDED if self.ledger.alarmed(bundle.version) else ""
        policy = Policy(bundle.manifest.ladder, relative, self.latency, absolute, suspended)
        enforcement = self.backend.enforcement
        return ServedModel(self.model, bundle.loaded, policy, scorer, self.backend, enforcement, self.fingerprint)

    def _certificates(self, manifest: Manifest) -> tuple[tuple[Certificate, ...], tuple[Certificate, ...]]:
        """Certificates for relative and absolute targets; they hold only on the backend that they were proved on."""
        if manifest.backend_fingerprint == self.fingerprint:
            return manifest.certificates, manifest.absolute
        about = {"bundle_is_about": manifest.backend_fingerprint, "backend": self.fingerprint}
        structlog.get_logger().warning("uncertified", **about, effect="top rung only")
        return (), ()


def classifier(bundle: Bundle, device: Device, server: "Triton | None") -> Classifier:
    """A bundle's classifier. Static vectors are scored in the event loop, since a thread would cost more than the run;
    everything else in batches, in a thread. Raises ArtifactError, SettingsError."""
    scoring = graph(bundle, device, server)
    structlog.get_logger().info("classifier", profile=bundle.manifest.text_encoder, runs_on=scoring.provider)
    if isinstance(scoring, OnnxClassifier) and bundle.manifest.text_encoder != "encoder":
        return scoring
    return Batching(scoring.scored)


def graph(bundle: Bundle, device: Device, server: "Triton | None") -> "OnnxClassifier | TritonClassifier":
    """The runner of a bundle's graph, verified. Raises ArtifactError, SettingsError."""
    if server is None:
        return OnnxClassifier(bundle, device)
    from router.scoring.triton import TritonClassifier

    return TritonClassifier(bundle, server)


def triton(settings: Settings, served: Served, stack: AsyncExitStack) -> "Triton | None":
    """A client of the server that runs the first model's graph; None where graphs run in this process."""
    if not settings.triton_url or served.artifact != settings.artifact:
        return None
    from router.scoring.kserve import Triton

    server = Triton(settings.triton_url, settings.triton_model)
    stack.callback(server.close)
    return server


async def ready(server: "Triton | None", patience: float) -> "Triton | None":
    """The same server once it has its model ready. Raises ClassifierError after `patience` seconds."""
    if server is not None:
        attempt = partial(asyncio.to_thread, server.versions)
        await until_up(attempt, ClassifierError, patience, {"classifier": server.name})
    return server


async def until_up(
    attempt: Callable[[], Awaitable[T]], down: type[DependencyError], patience: float, named: Mapping[str, str]
) -> T:
    """Try until a dependency is up. Raises `down` after `patience` seconds; each wait is logged with these fields."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return await attempt()
        except down as error:
            if time.monotonic() > deadline:
                raise
            structlog.get_logger().warning("waiting", **named, error=str(error))
            await asyncio.sleep(WAIT_SECONDS)


async def served_backend(
    settings: Settings, served: Served, observer: Observer, stack: AsyncExitStack
) -> "tuple[PocketBackend | Replicas, str]":
    """The backend, proved to hold budgets, and the fingerprint that a bundle must be about. Raises BackendError."""
    if served.backend == "pocket":
        reasoner = PocketModel.load(settings.pocket_model)
        pocket = PocketBackend(reasoner, settings.pocket_threads)
        stack.callback(pocket.close)
        return pocket, reasoner.fingerprint
    from router.backends.replicas import Replicas

    replicas = Replicas(engines(settings, served, stack), observer, settings.backend_hedge or None)
    named = {"backend": served.url}
    return replicas, await until_up(replicas.prove, BackendUnavailable, settings.backend_wait, named)


def engines(settings: Settings, served: Served, stack: AsyncExitStack) -> "list[Replica]":
    """Every replica of the engine, not proved yet."""
    from router.backends.connect import connect
    from router.backends.replicas import Replica

    connection = _connection(settings, served)
    urls = [url.strip() for url in served.url.split(",")]
    return [Replica(url, connect(replace(connection, url=url), canary.holds_budgets, stack)) for url in urls]


def _connection(settings: Settings, served: Served) -> "Connection":
    from router.backends.connect import Connection
    from router.backends.http import Timeouts
    from router.backends.two_phase import Markers

    timeouts = Timeouts(
        first=settings.backend_first_timeout, idle=settings.backend_idle_timeout, total=settings.backend_timeout
    )
    return Connection(
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
        tracing.carried.get,
    )


def outcome_log(settings: Settings, observer: Observer) -> "SqliteOutcomes | RedisOutcomes":
    """The outcome log. Raises OutcomeLogError, SettingsError."""
    secret = settings.cache_secret.get_secret_value().encode()
    if not settings.outcomes_url:
        return SqliteOutcomes(settings.outcomes, observer, texts=settings.log_prompts, secret=secret)
    from router.outcomes.redis import RedisOutcomes
    from router.redis.client import connect

    redis = connect(settings.outcomes_url, OUTCOMES_TIMEOUT)
    names = PromptHasher(secret, settings.log_prompts)
    return RedisOutcomes(redis, observer, names, settings.outcomes_length, OUTCOMES_TIMEOUT)


def auditor(settings: Settings, ledger: Ledger, observer: Observer, stack: AsyncExitStack) -> Auditor | None:
    """The auditor of certificates; None where audits are off."""
    if not settings.audit:
        return None
    verifier: Verifier = Agreement()
    if settings.verifier_url:
        from router.outcomes.verifiers import HttpVerifier

        verifier = http = HttpVerifier(settings.verifier_url, settings.backend_timeout)
        stack.push_async_callback(http.close)
    auditor = Auditor(settings.audit, TokenBucket(settings.audit_tokens), verifier, ledger, observer)
    stack.push_async_callback(auditor.close)
    return auditor


def quotas(settings: Settings, observer: Observer, stack: AsyncExitStack, background: dict[str, Work]) -> SharedQuotas:
    """The tenants' quotas, shared where a Redis is configured."""
    near = MemoryQuotas()
    if not settings.redis_url:
        return near
    from router.admission.redis_quotas import RedisQuotas
    from router.redis.client import connect

    redis = connect(settings.redis_url, settings.redis_timeout)
    shared = RedisQuotas(redis, settings.redis_timeout, near, observer)
    stack.push_async_callback(shared.close)
    background["renew leases"] = shared.renew
    return shared


def known_tenants(settings: Settings) -> Tenants:
    """The tenants of the file; without one, everyone. Raises SettingsError."""
    return Tenants(tenants.DEFAULT if settings.tenants is None else tenants.load(settings.tenants))


def certificates(settings: Settings) -> Certificates | None:
    """The certificates for TLS; None = plaintext. Raises SettingsError."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificates(TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca))


def followed(settings: Settings, known: Tenants, certs: Certificates | None) -> list[Followed]:
    """The files of tenants and certificates, where there are any."""
    files = []
    if (path := settings.tenants) is not None:

        async def reload() -> None:
            known.replace(await asyncio.to_thread(tenants.load, path))

        files.append(Followed("tenants", partial(file_stamp, path), reload))
    if certs is not None:
        files.append(Followed("tls", lambda: [file_stamp(path) for path in certs.files.paths], certs.reload))
    return files


def score_cache(settings: Settings, observer: Observer, stack: AsyncExitStack, background: dict[str, Work]) -> Cache:
    """The score cache, shared where a Redis is configured."""
    near = MemoryCache(settings.cache_entries, settings.cache_bytes)
    if not settings.redis_url:
        return near
    from router.scoring.tiered_cache import TieredCache

    tiered = TieredCache(near, redis_cache(settings, stack), observer)
    stack.push_async_callback(tiered.drain)
    background["watch flushes"] = tiered.watch
    return tiered


def redis_cache(settings: Settings, stack: AsyncExitStack) -> "RedisCache":
    """The shared level of the score cache."""
    from router.redis.client import connect
    from router.scoring.redis_cache import RedisCache

    redis = connect(settings.redis_url, settings.redis_timeout)
    cache = RedisCache(redis, settings.cache_ttl, settings.redis_timeout)
    stack.push_async_callback(cache.close)
    return cache
