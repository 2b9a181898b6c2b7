"""Builds the parts of the service from settings. An exit stack closes them.

The clients of Redis, HTTP and Triton are imported where they are chosen: the default start need not pay their 0.4 s.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector

from router.admission import tenants
from router.admission.fair_queue import FairQueue
from router.admission.tenants import Tenants
from router.domain import Enforcement, MaxLoss
from router.envoy.budget_fields import BudgetFields
from router.envoy.gateway import Gateway
from router.errors import SettingsError
from router.extras import needs
from router.outcomes.e_process import Ledger
from router.outcomes.sqlite import SqliteOutcomes
from router.requests.limits import MAX_MESSAGE_BYTES, Limits
from router.routing.chooser import Chooser
from router.rpc.tls import Certificates, TlsFiles
from router.serving import learning, models, stores
from router.serving.follow import Followed, file_stamp
from router.serving.keeper import Work
from router.serving.parts import Endpoints, Model, Parts
from router.settings import PREFIX, Settings
from router.telemetry import tracing
from router.telemetry.log_writer import Defer
from router.telemetry.logs import LogLines, Observers
from router.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from router.outcomes.redis import RedisOutcomes
    from router.telemetry.opentelemetry import Traces


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
    further = [*([] if traces is None else [traces]), *learning.traffic(settings, stack, background)]
    counted = Metrics(figures, None if settings.workers > 1 else defer)
    observer = Observers([LogLines(defer), counted, *further])
    cache = stores.score_cache(settings, observer, stack, background)
    ledger = Ledger(settings.audit_file)
    served_models = [await models.model(settings, served, cache, ledger, observer, stack) for served in settings.served]
    # In a thread: another process may hold the file, and signals end the start meanwhile.
    outcomes = await asyncio.to_thread(stores.outcome_log, settings, observer)
    stack.push_async_callback(outcomes.close)
    known, certs = known_tenants(settings), certificates(settings)
    queue = FairQueue(settings.capacity, settings.queue_seconds)
    return Parts(
        models=served_models,
        cache=cache,
        outcomes=outcomes,
        tenants=known,
        queue=queue,
        quotas=stores.quotas(settings, observer, stack, background),
        chooser=Chooser(settings.explore, settings.taught),
        pins=stores.pins(settings, observer, stack),
        ledger=ledger,
        audit=learning.auditor(settings, ledger, observer, stack),
        learner=await learning.learner(settings, served_models[0], queue, observer, stack),
        learned=learning.learned(settings, background),
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
        window_seconds=settings.stream_window_ms / 1000,
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
