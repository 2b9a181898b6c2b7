"""From a kind of engine and its address to a backend whose enforcement is proved."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from router.backends.chat import Chat
from router.backends.dialects import DIALECTS, Dialect
from router.backends.http import Engine, Timeouts, mapped_errors
from router.backends.two_phase import Markers, TwoPhase
from router.backends.verified import Canary, EnforcementStrategy, VerifiedBackend, digest
from router.domain import Enforcement, Message, Prompt, Role

HOSTED = "openai_effort"
"""Takes the name of an effort; nothing can be proved of it."""

WORDS = Prompt((Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "2 + 2 =")))
"""The conversation whose rendering tells templates apart."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An engine to be used.

    Attributes:
        kind: a name in DIALECTS.
        enforcement: "auto" (native, else two phases), or one of them alone.
        unenforced: serve an engine that holds no budget, as a hint.
        images: the model takes them.
        headers: what else goes with a request, such as its trace.
    """

    kind: str
    url: str
    model: str
    api_key: str = ""
    enforcement: str = "auto"
    unenforced: bool = False
    images: bool = False
    markers: Markers = field(default_factory=Markers)
    timeouts: Timeouts = field(default_factory=Timeouts)
    connections: int = 100
    headers: Callable[[], Mapping[str, str]] = dict


def connect(connection: Connection, canary: Canary, stack: AsyncExitStack) -> VerifiedBackend:
    """The backend, not yet proved; its connections are closed with the stack."""
    dialect = DIALECTS[connection.kind]
    engine = Engine(connection.url, connection.timeouts, connection.connections, connection.api_key, connection.headers)
    stack.push_async_callback(engine.close)
    ways, model = [], connection.model
    two_phase = (
        None if dialect.completions is None else TwoPhase(engine, model, dialect.completions, connection.markers)
    )
    chat = Chat(engine, model, dialect, two_phase, connection.images)
    if connection.kind != HOSTED and connection.enforcement != "two_phase":
        ways.append(EnforcementStrategy(Enforcement.NATIVE, chat, Chat(engine, model, dialect, None)))
    if two_phase is not None and connection.enforcement != "native":
        ways.append(EnforcementStrategy(Enforcement.TWO_PHASE, two_phase, two_phase))
    last = chat if connection.unenforced or not ways else None
    return VerifiedBackend(ways, last, chat.ready, _identity(engine, model, dialect), canary)


def _identity(engine: Engine, model: str, dialect: Dialect) -> Callable[[], Awaitable[str]]:
    async def identity() -> str:
        with mapped_errors():
            told = f"{await dialect.version(engine)}/{model}"
            if dialect.completions is not None:
                render = dialect.completions.render
                told += f"/{digest(*[await render(engine, model, WORDS, thinking) for thinking in (True, False)])}"
        return told

    return identity
