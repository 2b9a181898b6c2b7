"""A service as a process of its own, forked from one that has imported everything, which takes two seconds of CPU."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["router.cli.commands", "router.cli.service", "router.serving.app", "router.serving.supervisor", "uvloop"]
)


class Forked:
    """`python -m router` with these arguments. What `subprocess.Popen` has of the same name is alike.

    Two things are not as in a process that a command starts: modules read the environment before it is changed, and
    the interpreter ends without taking itself apart. Tests of the start and of the end therefore start a command.
    """

    def __init__(self, arguments: Sequence[str], *, out: Path, cwd: Path, env: Mapping[str, str]) -> None:
        errors, theirs = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_run, args=(arguments, out, theirs, cwd, dict(env)), daemon=True)
        with pytest.MonkeyPatch.context() as patch, theirs:
            for name in [name for name in os.environ if name.startswith("GRPC_")]:
                patch.delenv(name)
            self._process.start()
        with errors:
            self.stderr = os.fdopen(os.dup(errors.fileno()))

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the signal that ended it, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, at most so many seconds; its exit code. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("router", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _run(arguments: Sequence[str], out: Path, errors: Connection, cwd: Path, env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    with out.open("w") as file, errors:
        os.dup2(file.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    sys.argv = ["router", *arguments]
    runpy.run_module("router", run_name="__main__", alter_sys=True)
