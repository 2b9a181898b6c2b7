"""What an engine says about itself: its kind and its model, where nobody has named them.

vLLM, SGLang and llama.cpp write their names into their lists of models (`owned_by`), and each has an address of its
own that tells its version. A server that has none of these speaks the API of hosted models, and that alone.
"""

from contextlib import AsyncExitStack
from dataclasses import replace

from router.backends import families
from router.backends.connect import HOSTED, Connection, client
from router.backends.dialects import DIALECTS
from router.backends.failures import UNCERTAIN, MappedErrors
from router.backends.http import EngineClient
from router.backends.listing import ListedModel, check_serves, listed, shown
from router.errors import BackendError, BackendMisconfigured, BackendUnavailable, SettingsError

OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama_cpp"}
"""The word that an engine writes as the owner of its models, and its kind."""

SIGNS = {
    "llama_cpp": (("/props", "build_info"),),
    "sglang": (("/server_info", "version"), ("/get_server_info", "version")),
    "vllm": (("/version", "version"),),
}
"""Addresses that only one kind of engine has, and a field of the answer. Forks write other owners, but keep these."""


async def identified(connection: Connection) -> Connection:
    """The connection with kind and model as the engine names them, where it leaves them open ("").

    Raises:
        BackendError: the engine does not say what it serves, or serves nothing yet.
        SettingsError: the URL is wrong, or the engine's answers leave the kind open, or several models.
    """
    async with AsyncExitStack() as stack:
        engine = client(connection, stack)
        models = await listed(engine)
        kind = connection.kind or await _kind(engine, models)
    return replace(connection, kind=kind, model=connection.model or _only(models))


async def version(connection: Connection) -> str:
    """The version of an engine of the connection's kind that serves its model.

    Raises:
        BackendError: it does not answer, is another kind of engine, or serves other models; says which.
        SettingsError: the URL is wrong.
    """
    kind = connection.kind
    async with AsyncExitStack() as stack:
        engine = client(connection, stack)
        models = await check_serves(engine, connection.model)
        named = {OWNERS[model.owner] for model in models if model.owner in OWNERS}
        if named and kind not in (HOSTED, *named):
            raise BackendMisconfigured(f"backend: it says that it is {', '.join(named)}, not {kind}", "kind")
        try:
            return await DIALECTS[kind].version(engine)
        except UNCERTAIN:
            raise
        except BackendError as error:
            raise BackendError(
                f"{error}, which every {kind} has: is it another kind of engine, or does a proxy before it forward /v1 "
                "alone?"
            ) from error


async def window(connection: Connection) -> int | None:
    """Tokens that prompt, thought and answer may have together; None where the engine does not say.

    Raises:
        BackendError: it does not answer.
        SettingsError: the URL is wrong.
    """
    completions = DIALECTS[connection.kind].completions
    if completions is None:
        return None
    async with AsyncExitStack() as stack:
        engine = client(connection, stack)
        try:
            with MappedErrors():
                return await completions.window(engine, connection.model)
        except UNCERTAIN:
            raise
        except BackendError:  # a proxy may not forward this address
            return None


async def markers(connection: Connection) -> tuple[bool, str] | None:
    """Which markers a thought is held by, in words, and whether the model looks as if they were its own.

    Returns:
        None for hosted models, whose thoughts nobody cuts.

    Raises:
        BackendError: it does not answer.
        SettingsError: the URL is wrong.
    """
    completions = DIALECTS[connection.kind].completions
    if completions is None:
        return None
    async with AsyncExitStack() as stack:
        engine = client(connection, stack)
        family = await families.family(engine, connection.model, completions)
        held = await families.find(engine, connection.model, completions, connection.markers)
        right = (held.start, held.end) == (family.markers.start, family.markers.end)
        said = f"{held.start!r} and {held.end!r}"
        if connection.markers.start or connection.markers.end:
            said += ", as the settings say"
        if right:
            return True, f"{said}, as {family.name} have them"
        own = f"{family.markers.start!r} and {family.markers.end!r}"
        unset = "unset BUDGET_ROUTER_THINK_START and BUDGET_ROUTER_THINK_END, unless you know better"
        return False, f"{said}, but the model looks like {family.name}, which have {own}: {unset}"


async def _kind(engine: EngineClient, models: list[ListedModel]) -> str:
    """A name in DIALECTS. Raises SettingsError."""
    for model in models:
        if model.owner in OWNERS:
            return OWNERS[model.owner]
    certain = True
    for kind, places in SIGNS.items():
        for path, field in places:
            try:
                if field in await engine.ask(path):
                    return kind
            except UNCERTAIN:
                certain = False
            except BackendError:  # it has no such address, or answers something else there
                pass
    if not certain:
        raise SettingsError(
            f"the answers of {engine.url} do not tell what kind of engine it is; name it with --backend: "
            f"{', '.join(DIALECTS)}"
        )
    return HOSTED


def _only(models: list[ListedModel]) -> str:
    names = [model.name for model in models]
    if not names:
        raise BackendUnavailable("backend: it serves no model yet")
    if len(names) > 1:
        raise SettingsError(f"the engine serves {shown(names)}; name one of them with --model")
    return names[0]
