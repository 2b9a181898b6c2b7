"""What takes seconds to make, made once in a run: xdist's workers share it by a lock of a file."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker to want it fills by `make`. Nobody may change what is in it."""
    home = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        home = home.parent  # each worker has a folder of its own in that of the run
    folder, aside = home / name, home / f"{name}.half"
    with (home / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(aside, ignore_errors=True)  # of a worker that failed
            aside.mkdir()
            make(aside)
            aside.rename(folder)
    return folder
