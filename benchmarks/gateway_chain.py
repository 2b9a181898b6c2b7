"""A client, Envoy, the router and a simulated engine, for `make envoy-bench`: the router has a core of its own."""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.engine_bundle import bundle_about
from benchmarks.forwarding import started, until_up
from benchmarks.harness import LOAD_CORE, SERVER_CORE
from tests.support.envoy import Envoy, envoy_program, gateway
from tests.support.ports import free_port
from tests.support.simulators import MODEL

NAME = "- name: envoy.filters.http.ext_proc\n                    typed_config"
NO_ROUTER = {NAME: NAME.replace("typed", "disabled: true\n                    typed")}
"""An Envoy that does not ask, in the words of its configuration."""

SHOWS = {"outcomes\n                    disabled: true": "outcomes"}
"""One that shows responses."""

UNHURRIED = {"message_timeout: 0.2s": "message_timeout: 20s", "connect_timeout: 1s": "connect_timeout: 20s"}
"""One that waits on a busy machine, too: each request must be decided about."""


@dataclass(frozen=True)
class Chain:
    """Everything that requests pass, running; `pid` is the router's."""

    engine: str
    routing: str
    pid: int
    asking: Envoy
    bare: Envoy
    showing: Envoy
    session: aiohttp.ClientSession


@asynccontextmanager
async def chain(changes: Mapping[str, str], **given: str) -> AsyncIterator[Chain]:
    """The router on one core; on the other one the engine, Envoys, and the client.

    One Envoy asks the router, one does not, and one asks and then shows the response.

    Args:
        changes: of the configuration of the Envoys that ask.
        given: settings of the router.
    """
    engine_url, routing = f"http://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = {"BACKEND": "vllm", "BACKEND_URL": engine_url, "BACKEND_MODEL": MODEL, "LISTEN": routing}
    settings |= {"ENVOY": "true", "ENVOY_OUTCOMES": "true"} | given
    async with AsyncExitStack() as stack:
        port = engine_url.rpartition(":")[2]
        await stack.enter_async_context(started(LOAD_CORE, "benchmarks.forwarding", "engine", port, "0", "0"))
        await until_up(engine_url)
        own = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings["ARTIFACT"] = str(await bundle_about(engine_url, MODEL, own / "bundle"))
        settings["OUTCOMES"] = str(own / "outcomes.sqlite")
        environment = {f"BUDGET_ROUTER_{name}": value for name, value in settings.items()}
        pid = await stack.enter_async_context(started(SERVER_CORE, "router", "serve", **environment))
        await until_up(f"http://{routing}")
        asking, bare, showing = [
            await stack.enter_async_context(gateway(envoy_program(), routing, engine_url, changed))
            for changed in (changes, NO_ROUTER, {**changes, **SHOWS})
        ]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Chain(engine_url, routing, pid, asking, bare, showing, session)
