"""The composition root, top to bottom: build the parts, wire them, run what they make."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from router.admission.tenants import Tenants
from router.serving import assembly, gauges, servers, suspensions
from router.serving.allocator import give_memory_back, trim
from router.serving.follow import FOLLOW_SECONDS, Followed, Reload, follow_file
from router.serving.gauges import Gauges
from router.serving.keeper import Keeper, Work
from router.serving.parts import Parts
from router.serving.signals import stopped_by_signals
from router.serving.wiring import Wired, wire
from router.settings import Settings
from router.telemetry import metrics_server
from router.telemetry.log_writer import Defer

if TYPE_CHECKING:
    from router.http.server import HttpServer
    from router.rpc.server import RouterServer

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
    # Existing garbage must go first: nothing that is frozen is ever freed.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    trim()


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
    # Closed after the servers, too: a drain still renews leases and follows files.
    stack.push_async_callback(keeper.close)
    for name, work in {**parts.background, **_mirror(parts, now)}.items():
        keeper.keep(name, work)
    for followed in _followed(wired):
        work = partial(follow_file, followed, parts.observer, follow_seconds, reload=reload)
        keeper.keep(f"follow {followed.name}", work)
    # All addresses are bound before any server accepts a call, so a taken port is an error and not half a service.
    boundary = servers.boundary(parts)
    grpc, http = servers.by_grpc(wired, boundary), servers.by_http(wired, boundary.places)
    stack.push_async_callback(_drain, [*grpc, *http], parts.endpoints.drain_seconds)
    for server in grpc:
        await server.start()
        keeper.keep("health", server.watch_health)
    for front in http:
        await front.start()
    admin = grpc[1].port if len(grpc) > 1 else None
    return Ports(grpc[0].port, admin, parts.tenants, http[0].port if http else None)


async def _drain(fronts: "Sequence[RouterServer | HttpServer]", seconds: float) -> None:
    """Drain all servers together: a call of one, such as a promotion, takes nothing from the time of the others."""
    await asyncio.gather(*(front.drain(seconds) for front in fronts))


def _mirror(parts: Parts, now: Gauges) -> Mapping[str, Work]:
    """The supervisor's endpoint cannot ask the gauges of this process, so they are mirrored into files for it."""
    return {"mirror": partial(gauges.mirror, now)} if parts.endpoints.shared else {}


def _followed(wired: Wired) -> Iterator[Followed]:
    """All files that are read again when they change."""
    yield from wired.parts.followed
    for swap in wired.swaps.values():
        # Tried once: each try loads a graph, and a bundle that failed in the shadow must not get in by repetition.
        yield Followed("artifact", swap.stamp, swap.swap, again=False)
    for model in wired.parts.models:
        yield suspensions.by_the_trainer(wired.router, model.artifact, model.served.model)
    if wired.parts.endpoints.shared and wired.parts.audit is None:
        yield suspensions.by_the_audit(wired.router, wired.parts.ledger)
