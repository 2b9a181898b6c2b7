"""Builds the parts of the service from settings. An exit stack closes them.

The clients of Redis, HTTP and Triton are imported where they are chosen: the default start need not pay their 0.4 s.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector

from router.admission import tenants
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenants
from router.bundle import manifest
from router.domain import Enforcement, MaxLoss
from router.envoy.budget_fields import BudgetFields
from router.envoy.gateway import Gateway
from router.errors import SettingsError
from router.extras import needs
from router.learning import store
from router.learning.examiner import Examiner
from router.learning.journal import Journal
from router.learning.judging import ByVerifier, Judge
from router.learning.learner import Course, Learner
from router.learning.quiet import QuietMoment
from router.learning.traffic import Traffic
from router.outcomes.audit import Auditor, TokenBucket
from router.outcomes.e_process import Ledger
from router.outcomes.rows import PromptHasher
from router.outcomes.sqlite import SqliteOutcomes
from router.outcomes.verifiers import Agreement
from router.ports import Observer, Verifier
from router.requests.limits import MAX_MESSAGE_BYTES, Limits
from router.routing.chooser import Chooser
from router.routing.pins import MemoryPins
from router.rpc.tls import Certificates, TlsFiles
from router.scoring.memory_cache import MemoryCache
from router.scoring.static_inputs import StaticInputs
from router.serving import models
from router.serving.follow import Followed, file_stamp
from router.serving.keeper import Work
from router.serving.learned import Learned
from router.serving.parts import Cache, Endpoints, Model, Parts, ServicePins, ServiceQuotas
from router.settings import EMBEDDED_BUNDLE, PLAINTEXT_KEYS, PREFIX, Settings
from router.telemetry import tracing
from router.telemetry.log_writer import Defer
from router.telemetry.logs import LogLines, Observers
from router.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from router.outcomes.redis import RedisOutcomes
    from router.scoring.redis_cache import RedisCache
    from router.telemetry.opentelemetry import Traces

OBSERVED = 0.2
"""Share of the requests to learn from that the engine serves as it does by itself."""

OUTCOMES_TIMEOUT = 2.0
"""Seconds for a Redis to keep an outcome; callers of ReportOutcome wait for it."""


async def build(settings: Settings, defer: Defer, stack: AsyncExitStack) -> Parts:
    """All parts of the service; none of them has started yet.

    Raises:
        ArtifactError, BackendError, OutcomeLogError, SettingsError: a part cannot be built.
    """
    # The library's global registry refuses a name that it has already, so a process could build one service only.
    figures = CollectorRegistry()
    ProcessCollector(registry=figures)
    traces = tracer(settings, stack)
    background: dict[str, Work] = {}
    further = [*([] if traces is None else [traces]), *traffic(settings, stack, background)]
    observer = Observers([LogLines(defer), Metrics(figures), *further])
    cache = score_cache(settings, observer, stack, background)
    ledger = Ledger(settings.audit_file)
    served_models = [await models.model(settings, served, cache, ledger, observer, stack) for served in settings.served]
    # In a thread: another process may hold the file, and signals end the start meanwhile.
    outcomes = await asyncio.to_thread(outcome_log, settings, observer)
    stack.push_async_callback(outcomes.close)
    known, certs = known_tenants(settings), certificates(settings)
    queue = FairQueue(settings.capacity, settings.queue_seconds)
    return Parts(
        models=served_models,
        cache=cache,
        outcomes=outcomes,
        tenants=known,
        queue=queue,
        quotas=quotas(settings, observer, stack, background),
        chooser=Chooser(settings.explore, settings.taught),
        pins=pins(settings, observer, stack),
        ledger=ledger,
        audit=auditor(settings, ledger, observer, stack),
        learner=await learner(settings, served_models[0], queue, observer, stack),
        learned=learned(settings, background),
        limits=Limits(
            settings.max_messages, settings.max_prompt_bytes, MaxLoss(settings.max_loss), settings.max_image_bytes
        ),
        observer=observer,
        tracer=tracing.passed_on if traces is None else traces.span,
        figures=figures,
        endpoints=endpoints(settings, certs),
        gateway=gateway(settings, served_models),
        followed=followed(settings, known, certs, outcomes),
        background=background,
    )


def endpoints(settings: Settings, certs: Certificates | None) -> Endpoints:
    """Addresses of the servers, and how they accept calls."""
    return Endpoints(
        listen=settings.listen,
        http_listen=settings.http_listen,
        admin_listen=settings.admin_listen,
        admin_token=settings.admin_token.get_secret_value(),
        health_listen=settings.health_listen,
        metrics_listen=settings.metrics_listen,
        certificates=certs,
        shared=settings.workers > 1,
        connection_seconds=settings.connection_seconds,
        max_streams=settings.max_streams,
        # Only where the model takes images is there any use for more; health checks come through the same port.
        max_message_bytes=MAX_MESSAGE_BYTES + settings.backend_images * settings.max_image_bytes,
        max_large_bytes=settings.max_large_bytes,
        drain_seconds=settings.drain_seconds,
    )


def gateway(settings: Settings, served: Sequence[Model]) -> Gateway | None:
    """What a gateway may rely on; None where none asks. Raises SettingsError."""
    if not settings.envoy:
        return None
    for model in served:
        if model.served.enforcement is Enforcement.TWO_PHASE:
            why = f"{model.served.model} holds budgets in two phases, which a gateway does not run"
            raise SettingsError(f"{PREFIX}ENVOY: {why}")
    from router.backends.dialects import DIALECTS

    cue = settings.think_closing_cue
    return Gateway(
        {
            one.model: BudgetFields(one.model, dialect := DIALECTS[one.backend], dialect.cue if cue is None else cue)
            for one in settings.served
        },
        settings.envoy_seconds,
        settings.envoy_failure == "open",
        settings.envoy_tenant_header.lower(),
        settings.envoy_response_headers,
        settings.envoy_destination_header.lower(),
        settings.envoy_outcomes,
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


def outcome_log(settings: Settings, observer: Observer) -> "SqliteOutcomes | RedisOutcomes":
    """The outcome log. Raises OutcomeLogError, SettingsError."""
    # The log shares the cache's secret: both store hashes of prompts that replicas must be able to compare.
    secret = settings.cache_secret.get_secret_value().encode()
    if not settings.outcomes_url:
        return SqliteOutcomes(settings.outcomes, observer, texts=settings.log_prompts, secret=secret)
    from router.outcomes.redis import RedisOutcomes
    from router.redis.client import connect

    redis = connect(settings.outcomes_url, OUTCOMES_TIMEOUT, plaintext=PLAINTEXT_KEYS in settings.public)
    names = PromptHasher(secret, settings.log_prompts)
    return RedisOutcomes(redis, observer, names, settings.outcomes_length, OUTCOMES_TIMEOUT)


def auditor(settings: Settings, ledger: Ledger, observer: Observer, stack: AsyncExitStack) -> Auditor | None:
    """The auditor of certificates; None where audits are off."""
    if not settings.audited:
        return None
    # As what is learned was compared: a difference that is none there must not refute it.
    judged = verifier(settings, stack) or Agreement("text" if settings.learn == "off" else settings.learn_answers)
    auditor = Auditor(settings.audited, TokenBucket(settings.audit_tokens), judged, ledger, observer)
    stack.push_async_callback(auditor.close)
    return auditor


def verifier(settings: Settings, stack: AsyncExitStack) -> Verifier | None:
    """The operator's verifier; None where there is none."""
    if not settings.verifier_url:
        return None
    from router.outcomes.verifiers import HttpVerifier

    http = HttpVerifier(settings.verifier_url, settings.backend_timeout)
    stack.push_async_callback(http.close)
    return http


def traffic(settings: Settings, stack: AsyncExitStack, background: dict[str, Work]) -> list[Observer]:
    """What counts what is served, where the service learns."""
    if settings.learn == "off":
        return []
    counting = Traffic(settings.learn_folder, settings.learn)
    stack.push_async_callback(counting.close)
    background["count traffic"] = counting.keep
    return [counting]


def learned(settings: Settings, background: dict[str, Work]) -> Learned:
    """How far learning has come."""
    found = Learned(None if settings.learn == "off" else settings.learn_folder, settings.learn)
    if settings.learn != "off":
        background["read what was learned"] = found.follow
    return found


async def learner(
    settings: Settings, served: Model, queue: FairQueue, observer: Observer, stack: AsyncExitStack
) -> Learner | None:
    """What learns from the first model's answers; None where nothing does. Raises OutcomeFileError, SettingsError."""
    if settings.learn == "off":
        return None
    if not served.served.climbs:
        effect = "nothing is learned: the engine continues no token ids, or its thoughts cannot be cut as it cuts them"
        structlog.get_logger().warning("learning without steps", model=served.served.model, effect=effect)
    # In a thread: another process may hold the file.
    journal = await asyncio.to_thread(Journal, settings.learn_folder, observer)
    stack.push_async_callback(journal.close)
    secret = settings.cache_secret.get_secret_value().encode() or store.secret(settings.learn_folder)
    share = OBSERVED if settings.learn_share is None else settings.learn_share
    course = Course(served.served.model, models.learned_ladder(settings), share, settings.max_loss)
    names = PromptHasher(secret, settings.log_prompts)
    # Those of the bundle that ships, so that they stay the same whatever is promoted.
    extract = await asyncio.to_thread(lambda: StaticInputs(manifest.load(EMBEDDED_BUNDLE)))
    pause = QuietMoment(lambda: queue.under_way + queue.queued)
    examiner = Examiner(settings.learn_answers, judge(settings, stack), extract, names, pause, observer)
    learner = Learner(course, TokenBucket(settings.learn_tokens), examiner, journal, observer)
    stack.push_async_callback(learner.close)
    return learner


def judge(settings: Settings, stack: AsyncExitStack) -> Judge | None:
    """Who judges answers that differ; None where nobody does. Raises SettingsError."""
    if (verified := verifier(settings, stack)) is not None:
        return ByVerifier(verified)
    if not settings.learn_judge_url:
        return None
    from router.learning.model_judge import ByModel

    key = settings.learn_judge_key.get_secret_value()
    return ByModel(settings.learn_judge_url, settings.learn_judge_model, key, stack)


def quotas(settings: Settings, observer: Observer, stack: AsyncExitStack, background: dict[str, Work]) -> ServiceQuotas:
    """The tenants' quotas, shared where a Redis is configured."""
    near = MemoryQuotas()
    if not settings.redis_url:
        return near
    from router.admission.redis_quotas import RedisQuotas
    from router.redis.client import connect

    redis = connect(settings.redis_url, settings.redis_timeout, plaintext=PLAINTEXT_KEYS in settings.public)
    shared = RedisQuotas(redis, settings.redis_timeout, near, observer)
    stack.push_async_callback(shared.close)
    # Leases run out by themselves, so that a killed replica's streams count no longer; a long stream needs new ones.
    background["renew leases"] = shared.renew
    return shared


def pins(settings: Settings, observer: Observer, stack: AsyncExitStack) -> ServicePins:
    """What conversations keep, shared where a Redis is configured."""
    near = MemoryPins()
    if not settings.redis_url:
        return near
    from router.redis.client import connect
    from router.routing.pin_entries import PinEntries
    from router.routing.redis_pins import RedisPins

    redis = connect(settings.redis_url, settings.redis_timeout, plaintext=PLAINTEXT_KEYS in settings.public)
    entries = PinEntries(settings.cache_secret.get_secret_value().encode())
    shared = RedisPins(redis, entries, settings.redis_timeout, near, observer)
    stack.push_async_callback(shared.close)
    return shared


def known_tenants(settings: Settings) -> Tenants:
    """The tenants of the file; without one, everyone. Raises SettingsError."""
    known = tenants.DEFAULT if settings.tenants is None else tenants.load(settings.tenants)
    return Tenants(known, closed=settings.require_keys)


def certificates(settings: Settings) -> Certificates | None:
    """The certificates for TLS; None = plaintext. Raises SettingsError."""
    if settings.tls_certificate is None or settings.tls_key is None:  # `settings.load` refuses one without the other
        return None
    return Certificates(TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca))


def followed(
    settings: Settings, known: Tenants, certs: Certificates | None, outcomes: "SqliteOutcomes | RedisOutcomes"
) -> list[Followed]:
    """The files of tenants, certificates and outcomes, where there are any."""
    files = []
    if isinstance(outcomes, SqliteOutcomes):
        # Read by nobody, but one that was deleted must be noticed, and not only when there is something to write.
        files.append(Followed("outcomes", outcomes.identity, outcomes.check))
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

    tiered = TieredCache(near, redis_cache(settings, observer, stack), observer)
    # `redis_cache` has pushed the close of the connection, which must come after the writes under way.
    stack.push_async_callback(tiered.drain)
    # A flush by another process reaches Redis alone; this one must notice it and drop its own level.
    background["watch flushes"] = tiered.watch
    return tiered


def redis_cache(settings: Settings, observer: Observer, stack: AsyncExitStack) -> "RedisCache":
    """The shared level of the score cache."""
    from router.redis.client import connect
    from router.scoring.redis_cache import RedisCache
    from router.scoring.seal import Seal

    redis = connect(settings.redis_url, settings.redis_timeout, plaintext=PLAINTEXT_KEYS in settings.public)
    seal = Seal(settings.cache_secret.get_secret_value().encode())
    cache = RedisCache(redis, seal, observer, settings.cache_ttl, settings.redis_timeout)
    stack.push_async_callback(cache.close)
    return cache
