"""The parts of the service, each built from settings and closed with the stack that it is given.

The clients of Redis, HTTP and Triton are imported where they are chosen: the default start need not pay their 0.4 s.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from router.admission import tenants
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenants
from router.backends import canary
from router.backends.pocket import PocketBackend, PocketModel
from router.bundle import manifest, registry
from router.bundle.manifest import Bundle
from router.errors import BackendUnavailable, ClassifierError
from router.outcomes.audit import Auditor, TokenBucket
from router.outcomes.e_process import Ledger
from router.outcomes.rows import PromptHasher
from router.outcomes.sqlite import SqliteOutcomes
from router.outcomes.verifiers import Agreement
from router.ports import Classifier, Observer, ScoreCache, Verifier
from router.routing.policy import LatencyProfile, Policy
from router.routing.router import SUSPENDED
from router.routing.served_model import ServedModel
from router.scoring.batching import Batching
from router.scoring.cache_key import ScoreKeys
from router.scoring.memory_cache import MemoryCache
from router.scoring.onnx import Device, OnnxClassifier
from router.scoring.scorer import Scorer
from router.settings import Served, Settings
from router.telemetry import tracing

if TYPE_CHECKING:
    from router.admission.redis_quotas import RedisQuotas
    from router.backends.replicas import Replica, Replicas
    from router.outcomes.redis import RedisOutcomes
    from router.scoring.kserve import Triton
    from router.scoring.redis_cache import RedisCache
    from router.scoring.tiered_cache import TieredCache
    from router.scoring.triton import TritonClassifier

WAIT_SECONDS = 1.0
OUTCOMES_TIMEOUT = 2.0
"""Seconds that a Redis may take to keep an outcome; callers of ReportOutcome wait for it."""


async def served_profile(
    settings: Settings,
    served: Served,
    cache: ScoreCache,
    ledger: Ledger,
    observer: Observer,
    stack: AsyncExitStack,
) -> tuple[ServedModel, Callable[[Bundle], ServedModel]]:
    """A served model, and how to serve it with another bundle."""
    bundle = manifest.load(registry.locate(served.artifact))
    server = await ready(triton(settings, served, stack), settings.backend_wait)
    backend, fingerprint = await served_backend(settings, served, observer, stack)
    latency = LatencyProfile(settings.first_token_seconds, settings.token_seconds, settings.answer_tokens)
    secret = settings.cache_secret.get_secret_value().encode()

    def of(bundle: Bundle) -> ServedModel:
        """Certificates count only for the backend that they were proved on."""
        manifest = bundle.manifest
        certificates, absolute = manifest.certificates, manifest.absolute
        if manifest.backend_fingerprint != fingerprint:
            structlog.get_logger().warning(
                "uncertified", bundle_is_about=manifest.backend_fingerprint, backend=fingerprint, effect="top rung only"
            )
            certificates, absolute = (), ()
        keys = ScoreKeys(secret, bundle.version, manifest.ladder)
        scorer = Scorer(classifier(bundle, settings.classifier_device, server), keys, cache, observer)
        suspended = SUSPENDED if ledger.alarmed(bundle.version) else ""
        policy = Policy(manifest.ladder, certificates, latency, absolute, suspended)
        return ServedModel(served.model, bundle.loaded, policy, scorer, backend, backend.enforcement, fingerprint)

    return of(bundle), of


def classifier(bundle: Bundle, device: Device, server: "Triton | None") -> Classifier:
    """Static vectors are scored where they are asked for, as a thread would cost more; all else in batches beside."""
    scoring = graph(bundle, device, server)
    structlog.get_logger().info("classifier", profile=bundle.manifest.profile, runs_on=scoring.provider)
    if isinstance(scoring, OnnxClassifier) and bundle.manifest.profile != "encoder":
        return scoring
    return Batching(scoring.scored)


def graph(bundle: Bundle, device: Device, server: "Triton | None") -> "OnnxClassifier | TritonClassifier":
    """What runs a bundle's graph, verified. Raises ArtifactError, SettingsError."""
    if server is None:
        return OnnxClassifier(bundle, device)
    from router.scoring.triton import TritonClassifier

    return TritonClassifier(bundle, server)


def triton(settings: Settings, served: Served, stack: AsyncExitStack) -> "Triton | None":
    """The server that runs the first model's graph, not asked yet; None where graphs run here."""
    if not settings.triton_url or served.artifact != settings.artifact:
        return None
    from router.scoring.kserve import Triton

    server = Triton(settings.triton_url, settings.triton_model)
    stack.callback(server.close)
    return server


async def ready(server: "Triton | None", patience: float) -> "Triton | None":
    """The same, once its model can be asked; after `patience` seconds raises ClassifierError."""
    deadline = time.monotonic() + patience
    while server is not None:
        try:
            await asyncio.to_thread(server.versions)
            break
        except ClassifierError as error:
            if time.monotonic() > deadline:
                raise
            structlog.get_logger().warning("waiting", classifier=server.name, error=str(error))
            await asyncio.sleep(WAIT_SECONDS)
    return server


async def served_backend(
    settings: Settings, served: Served, observer: Observer, stack: AsyncExitStack
) -> "tuple[PocketBackend | Replicas, str]":
    """What answers, proved to hold budgets, and the fingerprint that a bundle must be about. Raises BackendError."""
    if served.backend == "pocket":
        reasoner = PocketModel.load(settings.pocket_model)
        pocket = PocketBackend(reasoner, settings.pocket_threads)
        stack.callback(pocket.close)
        return pocket, reasoner.fingerprint
    from router.backends.replicas import Replicas

    replicas = Replicas(engines(settings, served, stack), observer, settings.backend_hedge or None)
    deadline = time.monotonic() + settings.backend_wait
    while True:
        try:
            return replicas, await replicas.prove()
        except BackendUnavailable as error:
            if time.monotonic() > deadline:
                raise
            structlog.get_logger().warning("waiting", backend=served.url, error=str(error))
            await asyncio.sleep(WAIT_SECONDS)


def engines(settings: Settings, served: Served, stack: AsyncExitStack) -> "list[Replica]":
    """Every replica, not proved yet."""
    from router.backends.connect import Connection, connect
    from router.backends.http import Timeouts
    from router.backends.replicas import Replica
    from router.backends.two_phase import Markers

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
        tracing.carried.get,
    )
    urls = [url.strip() for url in served.url.split(",")]
    return [Replica(url, connect(replace(connection, url=url), canary.holds_budgets, stack)) for url in urls]


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


def auditor(
    settings: Settings, ledger: Ledger, observer: Observer, suspend: Callable[[str, str], None], stack: AsyncExitStack
) -> Auditor | None:
    """What audits answers; None where that is off. `suspend` is told of the model and bundle that lose."""
    if not settings.audit:
        return None
    verifier: Verifier = Agreement()
    if settings.verifier_url:
        from router.outcomes.verifiers import HttpVerifier

        verifier = http = HttpVerifier(settings.verifier_url, settings.backend_timeout)
        stack.push_async_callback(http.close)
    auditor = Auditor(settings.audit, TokenBucket(settings.audit_tokens), verifier, ledger, observer, suspend)
    stack.push_async_callback(auditor.close)
    return auditor


def quotas(settings: Settings, observer: Observer, stack: AsyncExitStack) -> "MemoryQuotas | RedisQuotas":
    """The tenants' quotas, shared where a Redis is configured."""
    near = MemoryQuotas()
    if not settings.redis_url:
        return near
    from router.admission.redis_quotas import RedisQuotas
    from router.redis.client import connect

    redis = connect(settings.redis_url, settings.redis_timeout)
    shared = RedisQuotas(redis, settings.redis_timeout, near, observer)
    stack.push_async_callback(shared.close)
    in_background(shared.renew(), stack)
    return shared


def known_tenants(settings: Settings, observer: Observer, stack: AsyncExitStack) -> Tenants:
    """The tenants, followed. Raises SettingsError."""
    if settings.tenants is None:
        return Tenants(tenants.DEFAULT)
    known = Tenants(tenants.load(settings.tenants))
    in_background(known.follow(settings.tenants, observer), stack)
    return known


def score_cache(settings: Settings, observer: Observer, stack: AsyncExitStack) -> "MemoryCache | TieredCache":
    """The score cache, shared where a Redis is configured."""
    near = MemoryCache(settings.cache_entries, settings.cache_bytes)
    if not settings.redis_url:
        return near
    from router.scoring.tiered_cache import TieredCache

    tiered = TieredCache(near, redis_cache(settings, stack), observer)
    stack.push_async_callback(tiered.drain)
    in_background(tiered.watch(), stack)
    return tiered


def redis_cache(settings: Settings, stack: AsyncExitStack) -> "RedisCache":
    """The shared level alone."""
    from router.redis.client import connect
    from router.scoring.redis_cache import RedisCache

    redis = connect(settings.redis_url, settings.redis_timeout)
    cache = RedisCache(redis, settings.cache_ttl, settings.redis_timeout)
    stack.push_async_callback(cache.close)
    return cache


def in_background(work: Coroutine[None, None, None], stack: AsyncExitStack) -> None:
    """Run it until the stack is left."""
    stack.callback(asyncio.create_task(work).cancel)
