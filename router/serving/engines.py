"""Engines as the settings name them: connected, proved to hold budgets, and measured.

The client of HTTP is imported where it is needed: the default start need not pay for it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from router.backends import canary
from router.backends.canary import Examined, Finding
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.backends.probes import Speed
from router.errors import BackendMisconfigured, BackendUnavailable, DependencyError, SettingsError
from router.ports import Observer
from router.routing.policy import LatencyProfile
from router.settings import PREFIX, Served, Settings
from router.telemetry import tracing

if TYPE_CHECKING:
    from router.backends.connect import Connection
    from router.backends.replica import Replica
    from router.backends.replicas import Replicas

T = TypeVar("T")
NamedCanary = Callable[[str, Examined], Awaitable[bool]]
"""As `Canary`, and gets the name of the replica first."""

POCKET_SPEED = Speed(0.01, 0.001)
"""The embedded model on one core."""

WAIT_SECONDS, REPEAT_SECONDS = 1.0, 10.0
"""Pause between two looks at a dependency that is not up yet, and between two log lines that say the same of it."""


async def until_up(
    attempt: Callable[[], Awaitable[T]], down: type[DependencyError], patience: float, named: Mapping[str, str]
) -> T:
    """Try until a dependency is up; the wait is logged with these fields. Raises `down` after `patience` seconds."""
    deadline = time.monotonic() + patience
    said, again = "", 0.0
    while True:
        try:
            return await attempt()
        except down as error:
            now = time.monotonic()
            if now > deadline:
                raise
            if str(error) != said or now >= again:
                said, again = str(error), now + REPEAT_SECONDS
                left = round(deadline - now)
                structlog.get_logger().warning("waiting", **named, error=said, gives_up_in_seconds=left)
            await asyncio.sleep(WAIT_SECONDS)


async def served_backend(
    settings: Settings, served: Served, observer: Observer, stack: AsyncExitStack
) -> "tuple[PocketBackend | Replicas, str, Speed]":
    """The backend, proved to hold budgets, the fingerprint that a bundle must be about, and its speed.

    Raises:
        SettingsError: the engine refuses the key, or serves other models.
        BackendError: no way to hold budgets works, or the engine does not come up.
    """
    if served.backend == "pocket":
        return *pocket_backend(settings, stack), POCKET_SPEED
    from router.backends.replicas import Replicas

    measured: dict[str, Speed] = {}

    async def logged(name: str, strategy: Examined) -> bool:
        def watch(finding: Finding) -> None:
            _log_finding(name, finding)
            if finding.speed is not None:
                measured[name] = finding.speed  # of the last strategy that was tried, which is the one that serves

        return await canary.holds_budgets(strategy, watch)

    backend = Replicas(replicas(settings, served, stack, logged), observer, settings.backend_hedge or None)
    named = {"backend": served.url}
    try:
        fingerprint = await until_up(backend.prove, BackendUnavailable, settings.backend_wait, named)
    except BackendMisconfigured as error:
        engine = "BACKEND" if served == settings.served[0] else "FAILOVER"
        raise SettingsError(
            f"{PREFIX}{engine}_{error.setting.upper()}: {str(error).removeprefix('backend: ')}"
        ) from error
    found = steps(backend.obstacle)
    structlog.get_logger().info(found.check, backend=served.url, passed=found.passed, seen=found.seen)
    return backend, fingerprint, slowest(measured.values())


def steps(obstacle: str) -> Finding:
    """Whether a rule may stop within a thought of an engine; `obstacle` is why not, "" where it may."""
    seen = f"no rule can stop a thought here: {obstacle}" if obstacle else "a rule may stop a thought"
    return Finding("steps within a thought", not obstacle, seen, needed=False)


def slowest(speeds: Iterable[Speed]) -> Speed:
    """The speed that every replica reaches. Where nothing was measured, as fast as the embedded model: a deadline that
    an engine would meet must not shrink a budget."""
    known = list(speeds) or [POCKET_SPEED]
    return Speed(max(speed.first_token for speed in known), max(speed.per_token for speed in known))


def latency_profile(settings: Settings, measured: Speed) -> LatencyProfile:
    """Forecasts of latency, from what was measured where the settings say nothing."""
    given = settings.first_token_seconds, settings.token_seconds
    first, per_token = measured.first_token, measured.per_token
    return LatencyProfile(
        first if given[0] is None else given[0], per_token if given[1] is None else given[1], settings.answer_tokens
    )


def pocket_backend(settings: Settings, stack: AsyncExitStack) -> tuple[PocketBackend, str]:
    """The embedded backend, and its fingerprint. Raises ArtifactError."""
    reasoner = PocketModel.load(settings.pocket_model)
    pocket = PocketBackend(reasoner, settings.pocket_threads)
    stack.callback(pocket.close)
    return pocket, reasoner.fingerprint


async def _holds_budgets(_: str, strategy: Examined) -> bool:
    return await canary.holds_budgets(strategy)


def replicas(
    settings: Settings, served: Served, stack: AsyncExitStack, examine: NamedCanary = _holds_budgets
) -> "list[Replica]":
    """Every replica of the engine, not proved yet; `examine` is the canary, and gets the replica's name."""
    from router.backends.connect import connect
    from router.backends.replica import Replica

    common = connection(settings, served)

    def replica(url: str) -> Replica:
        return Replica(url, connect(replace(common, url=url), partial(examine, url), stack))

    return [replica(url.strip()) for url in served.url.split(",")]


def _log_finding(name: str, finding: Finding) -> None:
    """A canary on a slow engine takes minutes, which must not pass in silence."""
    structlog.get_logger().info("canary", backend=name, check=finding.check, passed=finding.passed, seen=finding.seen)


def connection(settings: Settings, served: Served) -> "Connection":
    """How to reach the engine; `url` may name several replicas."""
    from router.backends.connect import Connection
    from router.backends.http import Timeouts
    from router.backends.markers import Markers

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
        Markers(settings.think_start, settings.think_end, settings.think_closing_cue),
        timeouts,
        settings.max_streams,
        tracing.carried.get,
        settings.backend_proxy.get_secret_value(),
    )
