"""The service as a process in front of bundles that it should not serve: it says why, and it ends when asked to."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.bundle import registry
from router.bundle.manifest import MANIFEST
from tests.conftest import MODELS, another_bundle
from tests.serving.test_serve import Server, command, environment, refused
from tests.support.hostile_graphs import endless, hostile
from tests.support.processes import children

SHIPPED = MODELS / "pocket-router"
TOKEN = "an operator's token"


def trying(process: int, asked: Any = None) -> int:
    """The process in which a service tries a bundle, once there is one; `asked` is the call that wants it tried."""
    until = time.monotonic() + 60
    while not (found := children(process)):
        assert time.monotonic() < until
        assert asked is None or not asked.done(), asked.exception()
        time.sleep(0.02)
    return found.pop()


def require_ended(process: int) -> None:
    """Wait for the end of a process; what nobody has asked about since is a zombie, and has ended, too."""
    until = time.monotonic() + 60
    while (status := Path(f"/proc/{process}/status")).exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < until
        time.sleep(0.02)


def with_fifo(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()
    os.mkfifo(bundle / MANIFEST)


def with_link(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).symlink_to(SHIPPED / MANIFEST)


def with_nonsense(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace('"alpha": 0.005', '"alpha": -7'))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (with_fifo, "a FIFO, not a regular file"),
        (with_link, "a symbolic link"),
        (with_nonsense, "certificates: 0.alpha"),
    ],
)
def test_a_bundle_that_is_none_is_one_line_and_exit_code_2(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(another_bundle(tmp_path / "bundle", "x"))
    assert said in refused(tmp_path, artifact=str(tmp_path / "bundle"))


def test_a_start_that_tries_an_endless_graph_ends_at_sigterm(tmp_path: Path) -> None:
    bundle = hostile(tmp_path / "endless", endless())
    starting = subprocess.Popen(
        command("--listen", "127.0.0.1:0"),
        cwd=tmp_path,
        env=environment(artifact=str(bundle)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        child = trying(starting.pid)
        starting.send_signal(signal.SIGTERM)
        assert starting.wait(60) == 0
        require_ended(child)
    finally:
        starting.kill()
        starting.wait()


def test_a_promotion_of_an_endless_graph_ends_with_the_service(tmp_path: Path) -> None:
    models = tmp_path / "models"
    version = registry.promote(models, SHIPPED)
    bundle = hostile(tmp_path / "endless", endless())
    server = Server(tmp_path, artifact=str(models), admin_token=TOKEN, admin_listen="127.0.0.1:0", drain_seconds="1")
    try:
        with grpc.insecure_channel(server.admin) as channel:
            admin = pb_grpc.BudgetRouterAdminServiceStub(channel)
            promoting = admin.PromoteModel.future(
                pb.PromoteModelRequest(path=str(bundle)), metadata=[("authorization", f"Bearer {TOKEN}")]
            )
            child = trying(server.process.pid, promoting)
            assert server.stop() == 0
            assert promoting.exception(60) is not None
        require_ended(child)
        assert [path.name for path in (models / registry.VERSIONS).iterdir()] == [version]
        assert registry.history(models) == [version]
    finally:
        server.close()
