"""The process that trains beside a service that learns: started, started again when it ends, ended with the service."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec

import structlog

from router.serving.backoff import Backoff
from router.settings import Settings

STOP_SECONDS = 5.0
"""Seconds that it has to end: it may be killed at any moment, and loses nothing."""

NEEDED = ("sklearn", "onnx", "polars", "wordllama")
"""Packages of the extra `train`, without which no training runs here."""


@asynccontextmanager
async def training(settings: Settings) -> AsyncIterator[None]:
    """Train while inside, where the service learns. Without the extra `train`, say what to run elsewhere."""
    if settings.learn == "off":
        yield
    elif missing := [name for name in NEEDED if find_spec(name) is None]:
        elsewhere = " ".join(["budget-train", *arguments(settings)])
        structlog.get_logger().warning(
            "nobody learns from the evidence here",
            missing=missing,
            remedy=f"install the extra `train`, or where it is, with the same folders, run: {elsewhere}",
        )
        yield
    else:
        # -P: otherwise a folder named `training` in the current directory would be run.
        with suppress(OSError):  # the service says what is wrong with it
            settings.learn_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = sys.executable, "-P", "-m", "training", *arguments(settings), "--parent", str(os.getpid())
        async with kept_running(command):
            yield


def arguments(settings: Settings) -> list[str]:
    """Arguments of `budget-train` that train for a service with these settings."""
    folder, registry = str(settings.learn_folder), str(settings.registry)
    act = ["--act"] if settings.learn == "act" else []
    tests = ["--max-loss", f"{settings.max_loss:g}", "--tenant-share", f"{settings.learn_tenant_share:g}"]
    audit = ["--audit-file", str(settings.audit_file)]
    misses = ["--judge-misses", f"{settings.learn_judge_misses:g}"] if settings.learn_judge_misses else []
    return ["learn", "--follow", "--folder", folder, "--registry", registry, *tests, *audit, *misses, *act]


@asynccontextmanager
async def kept_running(command: Sequence[str], backoff: Backoff | None = None) -> AsyncIterator[None]:
    """Run a command while inside, again and again where it ends by itself; ended on the way out."""
    task = asyncio.create_task(_keep(command, backoff or Backoff()))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep(command: Sequence[str], backoff: Backoff) -> None:
    while True:
        began = time.monotonic()
        why = await _run(command)
        backoff.worked(time.monotonic() - began)
        structlog.get_logger().error("the trainer ended", reason=why)
        await asyncio.sleep(backoff.pause())


async def _run(command: Sequence[str]) -> str:
    """Run the command to its end, which comes with the end of this call; returns why it ended."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,  # ours holds log lines alone; what it says is in the status
            start_new_session=True,  # Ctrl-C reaches the service only, which ends the trainer
        )
    except OSError as error:
        return str(error)
    try:
        return f"exit code {await process.wait()}"
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process that still runs."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
