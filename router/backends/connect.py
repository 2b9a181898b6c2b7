"""From the kind of an engine and its address to a backend that can be verified."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from router.backends.chat import Chat
from router.backends.dialects import DIALECTS, Dialect
from router.backends.failures import MappedErrors
from router.backends.families import UNKNOWN
from router.backends.http import EngineClient, Timeouts
from router.backends.markers import Markers
from router.backends.token_client import TokenClient
from router.backends.two_phase import TwoPhase
from router.backends.verified import Canary, EnforcementStrategy, VerifiedBackend, digest
from router.domain import Enforcement, Message, Prompt, Role

HOSTED = "openai_effort"
"""A hosted model takes the name of an effort; nothing about it can be verified."""

WORDS = Prompt((Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "2 + 2 =")))
"""The conversation whose rendering distinguishes templates."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach an engine, and what to expect of it.

    Attributes:
        kind: a name in DIALECTS.
        enforcement: "auto" (native, else two phases), "native" or "two_phase".
        unenforced: serve an engine that holds no budget, and call its budgets hints.
        images: the model takes images.
        markers: those around a thought; what is "" there is found out.
        headers: asked for the extra headers of each request, such as its trace.
        proxy: URL of the proxy between here and the engine; "" = none.
    """

    kind: str
    url: str
    model: str
    api_key: str = ""
    enforcement: str = "auto"
    unenforced: bool = False
    images: bool = False
    markers: Markers = UNKNOWN
    timeouts: Timeouts = field(default_factory=Timeouts)
    connections: int = 100
    headers: Callable[[], Mapping[str, str]] = dict
    proxy: str = ""


def client(connection: Connection, stack: AsyncExitStack) -> EngineClient:
    """The HTTP client of an engine; the stack closes it. Raises SettingsError for a wrong URL."""
    engine = EngineClient(
        connection.url,
        connection.timeouts,
        connection.connections,
        connection.api_key,
        connection.headers,
        connection.proxy,
    )
    stack.push_async_callback(engine.close)
    return engine


async def fingerprint(connection: Connection, canary: Canary) -> str:
    """The name of the engine for which alone a bundle's certificates count. Raises SettingsError, BackendError."""
    async with AsyncExitStack() as stack:
        return await connect(connection, canary, stack).prove()


def connect(connection: Connection, canary: Canary, stack: AsyncExitStack) -> VerifiedBackend:
    """The backend, not yet verified; the stack closes its connections. Raises SettingsError for a wrong URL."""
    dialect, model = DIALECTS[connection.kind], connection.model
    engine = client(connection, stack)
    markers = connection.markers
    if markers.cue is None:
        markers = replace(markers, cue=dialect.cue)
    api = dialect.completions
    two_phase = None if api is None else TwoPhase(TokenClient(engine, model, api), markers)
    find = None if two_phase is None else two_phase.borders.known_markers
    chat = Chat(engine, model, dialect, two_phase, connection.images, find, markers.cue)
    # The canary must see the engine alone: with its fallback, chat would pass even if the engine ignored budgets.
    alone = Chat(engine, model, dialect, None, markers=find, cue=markers.cue)
    strategies = list(_strategies(connection, chat, alone, two_phase))
    last = chat if connection.unenforced or not strategies else None
    identity = partial(_identity, engine, model, dialect, markers.cue)
    return VerifiedBackend(strategies, last, chat.check_ready, identity, canary, _phases(two_phase, dialect))


def _phases(two_phase: TwoPhase | None, dialect: Dialect) -> dict[Enforcement, TwoPhase]:
    """Two phases that close a thought as each enforcement does: not every engine says a cue by itself."""
    if two_phase is None:
        return {}
    native = two_phase if dialect.cue_field else two_phase.without_cue()
    return {Enforcement.NATIVE: native, Enforcement.TWO_PHASE: two_phase}


def _strategies(
    connection: Connection, chat: Chat, alone: Chat, two_phase: TwoPhase | None
) -> Iterator[EnforcementStrategy]:
    """The ways to hold budgets that may be tried, the preferred one first."""
    if connection.kind != HOSTED and connection.enforcement != "two_phase":
        yield EnforcementStrategy(Enforcement.NATIVE, chat, alone)
    if two_phase is not None and connection.enforcement != "native":
        yield EnforcementStrategy(Enforcement.TWO_PHASE, two_phase, two_phase)


async def _identity(
    engine: EngineClient, model: str, dialect: Dialect, cue: str | None, enforcement: Enforcement
) -> str:
    """Version, model and template of the engine, which tell one engine from another; a closing cue is part of them."""
    with MappedErrors():
        identity = f"{await dialect.version(engine)}/{model}"
        if dialect.completions is None:
            return identity
        render = dialect.completions.render
        renderings = [await render(engine, model, WORDS, thinking) for thinking in (True, False)]
        said = enforcement is Enforcement.TWO_PHASE or (enforcement is Enforcement.NATIVE and dialect.cue_field)
        return f"{identity}/{digest(*renderings, *([list(cue.encode())] if cue and said else []))}"
