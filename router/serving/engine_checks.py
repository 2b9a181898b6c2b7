"""The part of `doctor` that examines engines behind HTTP: what they are, and which way to hold budgets works there."""

from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from router.backends import canary
from router.backends.canary import Examined, Finding
from router.backends.connect import HOSTED
from router.backends.probes import Speed
from router.backends.remedies import START_WITH, remedy
from router.backends.verified import EnforcementStrategy
from router.errors import BackendError, BackendMisconfigured
from router.serving import engines
from router.serving.examination import Examination, Proved
from router.settings import POCKET, Served, Settings

if TYPE_CHECKING:
    from router.backends.connect import Connection
    from router.backends.replica import Replica

KEY = "give it one with --key-file or BUDGET_ROUTER_BACKEND_KEY"
ADVICE = {
    "(HTTP 401)": KEY,
    "(HTTP 403)": KEY,
    "/v1/models (HTTP 404)": "the URL must be the one below which /v1/models answers",
    "HTTP 503": "it may still be loading its model",
}
"""What to do about an error that holds these words."""


TAKEN = "it does not say; taken for a hosted API, whose budgets are hints; name it with --backend if it is none"
"""Where nothing distinguishes an engine from a hosted API, as behind a gateway that forwards /v1 alone."""


@dataclass(frozen=True)
class _Tried:
    """A strategy, whether it holds budgets, and how fast the engine is with it."""

    strategy: Examined
    holds: bool
    speed: Speed | None


async def identified(settings: Settings, kind_open: bool, found: Examination) -> Served | None:
    """The first model's engine, with its kind and its model; None where it does not answer. Raises SettingsError."""
    first = settings.served[0]
    if not kind_open and (first.backend == POCKET or settings.backend_model):
        return first
    from router.backends import detection

    kind, url = "" if kind_open else first.backend, first.url.partition(",")[0].strip()
    connection = replace(engines.connection(settings, first), kind=kind, url=url, model=settings.backend_model)
    try:
        known = await detection.identified(connection)
    except BackendError as error:
        _add_unknown(url, error, found)
        return None
    if kind_open and known.kind == HOSTED:
        found.add(Finding("kind of engine", False, TAKEN, needed=False))
    return replace(first, backend=known.kind, model=known.model)


async def examine_engine(
    settings: Settings, served: Served, found: Examination, stack: AsyncExitStack
) -> dict[str, Proved]:
    """Check each replica: what it is, each enforcement strategy by itself, and which one would serve.

    Returns:
        The replicas that would serve.
    """
    from router.backends import detection

    held: dict[Examined, bool] = {}

    async def known(_: str, strategy: Examined) -> bool:
        return held[strategy]

    proved: dict[str, Proved] = {}
    for replica in engines.replicas(settings, served, stack, known):
        try:
            connection = replace(engines.connection(settings, served), url=replica.name)
            version, window = await detection.version(connection), await detection.window(connection)
        except BackendError as error:
            _add_unknown(replica.name, error, found)
            continue
        if window is not None:
            found.window = min(window, found.window or window)
        found.add(Finding(f"engine at {replica.name}", True, f"{version}, serves {served.model}"))
        await _examine_markers(connection, found)
        tried = [await _examine_strategy(strategy, served.backend, found) for strategy in replica.backend.strategies]
        held |= {one.strategy: one.holds for one in tried}
        if fingerprint := await _examine_enforcement(replica, tried, served.backend, found):
            speed = next((one.speed for one in tried if one.holds), None)
            found.add(engines.steps(replica.backend.steps.obstacle))
            proved[replica.name] = Proved(fingerprint, speed, replica.backend.climbs)
    return proved


def _add_unknown(url: str, error: BackendError, found: Examination) -> None:
    """Note an engine that does not say what it is."""
    advice = "".join(f"; {words}" for sign, words in ADVICE.items() if sign in str(error))
    found.add(Finding(f"engine at {url}", False, f"{error}{advice}"))
    if isinstance(error, BackendMisconfigured):
        found.wrong.add(error.setting)


async def _examine_markers(connection: "Connection", found: Examination) -> None:
    from router.backends import detection

    with suppress(BackendError):  # what is wrong shows in the checks of two phases
        if (seen := await detection.markers(connection)) is not None:
            found.add(Finding("markers of a thought", *seen, needed=False))


async def _examine_strategy(strategy: EnforcementStrategy, kind: str, found: Examination) -> _Tried:
    name, holds, speed = strategy.enforcement.value, True, None
    async for finding in canary.examine(strategy.alone):
        holds, speed = holds and (finding.passed or not finding.needed), finding.speed
        advice = "" if finding.passed else remedy(kind, strategy.enforcement, finding.check)
        seen = f"{finding.seen}; {advice}" if advice else finding.seen
        # Not needed: one strategy that works is enough, and whether there is one is a finding of its own.
        found.add(replace(finding, check=f"{name}: {finding.check}", seen=seen, needed=False))
    return _Tried(strategy.alone, holds, speed)


async def _examine_enforcement(replica: "Replica", tried: list[_Tried], kind: str, found: Examination) -> str:
    """The fingerprint of the engine with the strategy that would serve; "" where none works."""
    check = f"enforcement of {replica.name}"
    try:
        fingerprint = await replica.backend.prove()
    except BackendError as error:
        none = f"no way to hold budgets works: see above; does the engine run with {START_WITH.get(kind)}?"
        works = not tried or any(one.holds for one in tried)
        found.add(Finding(check, False, str(error) if works else none))
        return ""
    found.add(Finding(check, True, fingerprint))
    return fingerprint
