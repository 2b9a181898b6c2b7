"""The composition root, top to bottom: build the parts, wire them, run what they make."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from router.admission import identity
from router.admission.controller import Admission
from router.admission.permits import Places
from router.admission.tenants import Tenants
from router.bundle import refuted
from router.envoy.decider import Decider
from router.envoy.gateway import Gateway
from router.envoy.processor import METHOD, SERVICE, ExternalProcessor
from router.routing.explain import Explainer
from router.routing.hot_swap import HotSwap
from router.routing.router import REFUTED, BudgetRouter
from router.rpc.admin import AdminServicer
from router.rpc.boundary import Boundary
from router.rpc.identity import OperatorGuard, TenantGuard
from router.rpc.server import Foreign, RouterServer, Service
from router.rpc.servicer import BudgetRouterServicer
from router.serving import assembly, gauges
from router.serving.allocator import give_memory_back, trim
from router.serving.follow import FOLLOW_SECONDS, Followed, Reload, file_stamp, follow_file
from router.serving.gauges import Gauges
from router.serving.keeper import Keeper, Work
from router.serving.parts import Parts
from router.serving.signals import stopped_by_signals
from router.settings import Settings
from router.telemetry import metrics_server
from router.telemetry.log_writer import Defer

if TYPE_CHECKING:
    from router.envoy.watcher import Watcher
    from router.http.server import HttpServer

OPERATORS = 16
"""Calls of the admin service under way at once."""

EXIT_SECONDS = 8.0
"""Seconds beyond the drain until a process that was asked to end is ended by force."""

COLLECT_AFTER = 20_000
"""New objects between runs of the garbage collector; with Python's 700 it would run every few requests."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports that accept calls; `admin` and `http` are None where there is no such service. `tenants` may call."""

    port: int
    admin: int | None
    tenants: Tenants
    http: int | None = None


async def serve(settings: Settings, announce: Callable[[Ports], None], defer: Defer) -> None:
    """Run until SIGTERM or SIGINT, then drain; SIGHUP reads all followed files again.

    Args:
        announce: called with the ports once calls are accepted.
        defer: builds log lines a moment later, as `LogWriter.defer` does.

    Raises:
        ArtifactError: the model bundle or the embedded model is unusable.
        SettingsError: a setting is wrong, or an address is not free.
        BackendError: the engine does not come up, or holds no budget.
        OutcomeLogError: the outcome log cannot be opened.
        DrainError: records of the outcome log were lost at the end.
    """
    give_memory_back()
    reload = Reload()

    def hangup() -> None:
        structlog.get_logger().info("reloading")
        reload()

    with stopped_by_signals(hangup, settings.drain_seconds + EXIT_SECONDS) as signalled:
        async with running(settings, defer, reload=reload) as ports:
            _spare_the_collector()
            announce(ports)
            await signalled()
            structlog.get_logger().info("draining", seconds=settings.drain_seconds)


@asynccontextmanager
async def running(
    settings: Settings,
    defer: Defer,
    replaced: Callable[[Parts], Parts] = lambda parts: parts,
    follow_seconds: float = FOLLOW_SECONDS,
    reload: Reload | None = None,
) -> AsyncIterator[Ports]:
    """The whole service in this event loop; drained and closed on the way out. `replaced` may exchange its parts."""
    async with AsyncExitStack() as stack:
        parts = await assembly.build(settings, defer, stack)
        yield await run(wire(replaced(parts)), stack, follow_seconds, reload)


def _spare_the_collector() -> None:
    """Exempt all objects of the start from garbage collection: they stay until the end."""
    # What is garbage already must go first: nothing that is frozen is ever freed.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    trim()


@dataclass(frozen=True)
class Wired:
    """The parts, and what they make together."""

    parts: Parts
    admission: Admission
    router: BudgetRouter
    swaps: Mapping[str, HotSwap]

    async def health(self) -> Mapping[str, bool]:
        """For the service ("") and each of its dependencies: does it work?"""
        works = {name: not fails for name, fails in self.parts.failing().items()}
        return {**await self.router.health(), **works}


def wire(parts: Parts) -> Wired:
    """Put the parts together; starts nothing, and asks nothing of the outside."""
    admission = Admission(parts.tenants, parts.queue, parts.quotas, parts.observer)
    router = BudgetRouter(
        [model.served for model in parts.models],
        parts.tenants,
        parts.outcomes,
        parts.observer,
        parts.chooser,
        parts.pins,
        admission,
        parts.audit,
        parts.learner,
    )
    if parts.audit is not None:
        # The router needs the auditor to be built, so the auditor learns only now whom to alarm.
        parts.audit.on_alarm(router.suspend)
    target = parts.limits.default_target
    swaps = {
        m.served.model: HotSwap(
            m.artifact,
            m.served.model,
            m.with_bundle,
            m.trial,
            router,
            parts.observer,
            m.shadow,
            target,
            learned=m.learned,
        )
        for m in parts.models
    }
    return Wired(parts, admission, router, swaps)


async def run(
    wired: Wired, stack: AsyncExitStack, follow_seconds: float = FOLLOW_SECONDS, reload: Reload | None = None
) -> Ports:
    """Start background tasks, metrics and servers. Leaving the stack ends them in reverse: calls drain first.

    Raises:
        SettingsError: an address is not free, or not of this machine.
    """
    parts = wired.parts
    now = Gauges(wired.router, parts.queue, wired.admission, parts.failing, lambda: parts.learned.latest)
    parts.figures.register(now)
    # Pushed before the servers, so closed after them: a drain can be watched to its end.
    stack.callback(metrics_server.serve(parts.endpoints.metrics_listen, parts.figures))
    keeper = Keeper(parts.observer)
    # Likewise: a drain still renews leases and follows files.
    stack.push_async_callback(keeper.close)
    for name, work in {**parts.background, **_mirror(parts, now)}.items():
        keeper.keep(name, work)
    for followed in _followed(wired):
        work = partial(follow_file, followed, parts.observer, follow_seconds, reload=reload)
        keeper.keep(f"follow {followed.name}", work)
    # All addresses are bound before any server accepts a call, so a taken port is an error and not half a service.
    boundary = _boundary(parts)
    servers, http = _servers(wired, boundary), _http(wired, boundary.places)
    stack.push_async_callback(_drain, [*servers, *http], parts.endpoints.drain_seconds)
    for server in servers:
        await server.start()
        keeper.keep("health", server.watch_health)
    for front in http:
        await front.start()
    admin = servers[1].port if len(servers) > 1 else None
    return Ports(servers[0].port, admin, parts.tenants, http[0].port if http else None)


async def _drain(servers: "Sequence[RouterServer | HttpServer]", seconds: float) -> None:
    """Drain all servers together: a call of one, such as a promotion, takes nothing from the time of the others."""
    await asyncio.gather(*(server.drain(seconds) for server in servers))


def _mirror(parts: Parts, now: Gauges) -> Mapping[str, Work]:
    """The supervisor's endpoint cannot ask the gauges of this process, so they are mirrored into files for it."""
    return {"mirror": partial(gauges.mirror, now)} if parts.endpoints.shared else {}


def _followed(wired: Wired) -> Iterator[Followed]:
    """All files that are read again when they change."""
    yield from wired.parts.followed
    for swap in wired.swaps.values():
        # Not again: each try loads a graph, and a bundle that failed in the shadow must not get in by repetition.
        yield Followed("artifact", swap.stamp, swap.swap, again=False)
    for model in wired.parts.models:
        yield _refutations(wired.router, model.served.model, model.artifact)
    if wired.parts.endpoints.shared and wired.parts.audit is None:
        yield _alarms(wired)


def _alarms(wired: Wired) -> Followed:
    """Only one worker audits; its alarms, which the ledger's file holds, apply to all of them."""
    ledger, router = wired.parts.ledger, wired.router

    def stamp() -> object:
        """Also changes with a swap: the new bundle may be one that has alarmed."""
        return file_stamp(ledger.path), [served.bundle.version for served in router.served_models]

    async def read() -> None:
        await asyncio.to_thread(ledger.read)
        for served in router.served_models:
            if ledger.alarmed(served.bundle.version) and not served.policy.suspended:
                router.suspend(served.model, served.bundle.version)

    return Followed("audit", stamp, read)


def _refutations(router: BudgetRouter, model: str, registry: Path) -> Followed:
    """The trainer watches what was learned; what it refutes applies to all services that follow the registry."""

    def stamp() -> object:
        """Also changes with a swap: the new bundle may have been refuted while it was loaded."""
        return file_stamp(registry / refuted.FILE), router.served_model(model).bundle.version

    async def read() -> None:
        found, served = await asyncio.to_thread(refuted.digests, registry), router.served_model(model)
        if served.bundle.version in found and not served.suspended:
            structlog.get_logger().warning("refuted", model=model, model_version=served.bundle.version, why=REFUTED)
            router.suspend(model, served.bundle.version, REFUTED)

    return Followed("artifact", stamp, read)


def _boundary(parts: Parts) -> Boundary:
    """The boundary of the routing service, whose places other ways in share."""
    ends, guard = parts.endpoints, TenantGuard(parts.tenants)
    return Boundary(guard, ends.max_streams, parts.observer, parts.tracer, ends.max_large_bytes)


def _http(wired: Wired, places: Places) -> "list[HttpServer]":
    """The server of the OpenAI-compatible API, where it has an address. Raises SettingsError."""
    parts, ends = wired.parts, wired.parts.endpoints
    if not ends.http_listen:
        return []
    # Imported where it is chosen: the default start need not pay for an HTTP server.
    from router.http.boundary import Boundary as HttpBoundary
    from router.http.endpoints import Endpoints
    from router.http.reading import BodyReader
    from router.http.server import HttpServer

    routes = Endpoints(wired.router, parts.limits, wired.health, ends.window_seconds).routes
    reader = BodyReader(ends.max_message_bytes, ends.max_streams)
    guard = identity.TenantGuard(parts.tenants)
    boundary = HttpBoundary(routes, guard, places, reader, parts.observer, parts.tracer)
    tls = None if ends.certificates is None else ends.certificates.context()
    return [HttpServer(boundary, ends.http_listen, tls, ends.max_streams, ends.shared)]


def _servers(wired: Wired, boundary: Boundary) -> list[RouterServer]:
    """The server of the routing service, and that of the admin service where it is open. Raises SettingsError."""
    parts, ends = wired.parts, wired.parts.endpoints
    explainer = Explainer(wired.router, parts.outcomes)
    servicer = BudgetRouterServicer(wired.router, explainer, parts.limits, ends.window_seconds)
    routing = Service.routing(servicer, ends.max_message_bytes)
    servers = [
        _server(wired, routing, boundary, ends.listen, ends.connection_seconds, ends.health_listen, _beside(wired))
    ]
    if ends.admin_token:
        boundary = Boundary(OperatorGuard(ends.admin_token), OPERATORS, parts.observer, parts.tracer)
        admin = Service.admin(AdminServicer(wired.router, wired.swaps, parts.cache.flush, parts.learned.read))
        servers.append(_server(wired, admin, boundary, ends.admin_listen))
    return servers


def _server(
    wired: Wired,
    service: Service,
    boundary: Boundary,
    listen: str,
    connection_seconds: float = 0,
    probes: str = "",
    beside: Sequence[Foreign] = (),
) -> RouterServer:
    ends = wired.parts.endpoints
    credentials = None if ends.certificates is None else ends.certificates.credentials()
    return RouterServer(
        service, boundary, listen, credentials, wired.health, ends.shared, connection_seconds, probes, beside
    )


def _beside(wired: Wired) -> Sequence[Foreign]:
    """The services by which other programs than our clients ask for decisions."""
    parts = wired.parts
    if (gateway := parts.gateway) is None:
        return ()
    watcher = _watcher(wired, gateway) if gateway.responses else None
    expect = None if watcher is None else watcher.expect
    decider = Decider(wired.router, parts.tenants, parts.limits, gateway, parts.observer, expect)
    processor = ExternalProcessor(decider, watcher, response_headers=gateway.response_headers)
    return (Foreign(SERVICE, {METHOD: processor.process}),)


def _watcher(wired: Wired, gateway: Gateway) -> "Watcher":
    # Imported where it is chosen: it reads answers of engines, with what the client of HTTP needs.
    from router.envoy.watcher import Watcher

    dialects = {model: engine.dialect for model, engine in gateway.engines.items()}
    parts = wired.parts
    return Watcher(wired.router, parts.outcomes, parts.tenants, dialects, parts.observer)
