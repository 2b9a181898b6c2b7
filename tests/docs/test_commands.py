"""The documentation is followed as a reader would: every command and program of a page, in order, as printed."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.conftest import MODELS
from tests.serving.test_serve import running
from tests.support.court import court
from tests.support.pages import PAGES, ROOT, blocks
from tests.support.ports import free_port
from tests.support.reader import leave_off_where_the_readme_ends, reading
from tests.support.simulators import simulated
from tests.support.triton_simulator import TritonSimulator

ENGINES = {
    "http://127.0.0.1:8000": ("vllm", "Qwen/Qwen3-8B"),
    "http://127.0.0.1:30000": ("sglang", "Qwen/Qwen3-8B"),
    "http://127.0.0.1:8080": ("llama_cpp", "qwen3-8b"),
    "https://api.example.com": ("vllm", "your-model"),
}
"""Addresses that the pages print; in which engine's shape a simulator answers there, and for which model."""

JUDGE = "http://127.0.0.1:8001"
HTTP = "127.0.0.1:50080"
"""Where pages serve the OpenAI-compatible API; here any free port takes its place."""

TRITON = "triton:8001"
FOLLOWED = [page for page in PAGES if blocks(page)]


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, str]]:
    """A running simulator of each kind of engine: their addresses by those that the pages print."""
    found: dict[str, str] = {}
    ready, loop = threading.Event(), asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for printed, (kind, model) in ENGINES.items():
                simulator = await stack.enter_async_context(simulated(kind))
                simulator.models, simulator.window = (model,), 40_960
                found[printed] = simulator.url
            found[JUDGE] = (await stack.enter_async_context(court())).url
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    yield found
    loop.call_soon_threadsafe(ended.set)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service with the embedded model, as `make run` leaves it."""
    with running(tmp_path_factory.mktemp("service")) as server:
        yield server.address


@pytest.fixture(scope="module")
def triton() -> Iterator[str]:
    """The address of a Triton that serves the shipped bundle's graph."""
    simulator = TritonSimulator(v1=(MODELS / "pocket-router" / "model.onnx").read_bytes())
    simulator.start()
    yield simulator.url
    simulator.kill()


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: page.stem)
def test_every_command_of_a_page_works_as_printed(
    page: Path, tmp_path: Path, engines: dict[str, str], service: str, triton: str
) -> None:
    if page.name != "README.md":
        leave_off_where_the_readme_ends(tmp_path)
    printed = engines | {TRITON: triton, HTTP: f"127.0.0.1:{free_port()}"}
    with reading(tmp_path, printed, service, fits=False) as reader:
        for block in blocks(page):
            reader.follow(block)


@pytest.mark.slow  # trains a bundle
def test_the_readme_works_with_a_bundle_that_is_trained(tmp_path: Path, engines: dict[str, str], service: str) -> None:
    printed = engines | {HTTP: f"127.0.0.1:{free_port()}"}
    with reading(tmp_path, printed, service, fits=True) as reader:
        for block in blocks(ROOT / "README.md"):
            reader.follow(block)
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["backend_fingerprint"].startswith("vllm")
