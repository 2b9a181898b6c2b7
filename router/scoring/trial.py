"""A bundle's trial: another process loads it and scores its parity sample first, within bounds of time and memory.

A graph or a tokenizer can loop for ever, take all memory, or crash the process that loads it. The bounds are the
kernel's, so they hold whatever the bundle does; this process waits and can be stopped meanwhile.
"""

import asyncio
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from router.bundle import manifest
from router.bundle.manifest import Bundle
from router.errors import ArtifactError
from router.scoring.lookahead import OnnxLookahead
from router.scoring.onnx import OnnxClassifier

STATIC_SECONDS, ENCODER_SECONDS = 10, 120
"""Longest trial, in seconds of a processor. A bundle with static vectors takes less than one."""

PATIENCE = 6
"""As many times longer may a trial take by the clock: the machine may be busy."""

ENDLESS = "scoring its parity sample did not end"
MEMORY, COPIES = 2 << 30, 6
"""Address space of the process in bytes, and as many times the size of model and tokenizer on top."""


async def require_bounded(directory: Path, bundle: Bundle, seconds: int | None = None) -> None:
    """Try the bundle in `directory` in another process, which ends with this call.

    Args:
        bundle: the same, as this process has read it.
        seconds: longest trial, of a processor; the default depends on the text encoder.

    Raises:
        ArtifactError: it cannot be served, does not end, takes too much memory, crashes, or is another one by now.
    """
    if seconds is None:
        seconds = ENCODER_SECONDS if bundle.manifest.text_encoder == "encoder" else STATIC_SECONDS
    size = MEMORY + COPIES * (len(bundle.model) + len(bundle.tokenizer))
    process = await _started(directory, sys.executable, "-P", "-m", __name__, str(directory), str(size), str(seconds))
    try:
        async with asyncio.timeout(PATIENCE * seconds):
            said, _ = await process.communicate()
    except TimeoutError as error:
        raise ArtifactError(f"{directory}: {ENDLESS} within {PATIENCE * seconds} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == -signal.SIGXCPU:
        raise ArtifactError(f"{directory}: {ENDLESS} within {seconds} s of a processor")
    _require_version(directory, bundle.version, said, process.returncode)


def run(directory: Path, bundle: Bundle) -> None:
    """As `require_bounded`, for a program without an event loop. Raises ArtifactError."""
    asyncio.run(require_bounded(directory, bundle))


def main(directory: str, memory: str, seconds: str) -> None:
    """Load a bundle and score its parity sample, then print its version or what is wrong with it, as JSON."""
    _limit(resource.RLIMIT_AS, int(memory))
    # Holds also where the waiting process is killed.
    _limit(resource.RLIMIT_CPU, int(seconds))
    _limit(resource.RLIMIT_CORE, 0)
    with suppress(OSError):  # where a container's memory is less, this process ends, and not the service
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        bundle = manifest.load(Path(directory))
        OnnxClassifier(bundle)
        if bundle.lookahead:
            OnnxLookahead(bundle)
    except ArtifactError as error:
        print(json.dumps({"error": str(error)}))
    else:
        print(json.dumps({"version": bundle.version}))


async def _started(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    """The other process. Raises ArtifactError where the machine has no room for one more."""
    try:
        return await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for this process, which ends the other one
        )
    except OSError as error:
        raise ArtifactError(f"{directory}: no process can be started for its trial: {error.strerror}") from error


def _limit(kind: int, most: int) -> None:
    """Lower a limit of this process, which an operator may have set lower still."""
    # The hard limit stays: that of the processor's time would kill without saying why.
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _require_version(directory: Path, version: str, said: bytes, code: int | None) -> None:
    try:
        # The last line: a library may print something, too.
        answer = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError) as error:
        ended = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        raise ArtifactError(f"{directory}: scoring its parity sample ended a process ({ended})") from error
    if "error" in answer:
        raise ArtifactError(answer["error"])
    if answer["version"] != version:
        raise ArtifactError(f"{directory}: it changed while it was loaded")


def _environment() -> dict[str, str]:
    """This process's environment and import path, without its secrets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUDGET_ROUTER_")}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


if __name__ == "__main__":
    main(*sys.argv[1:])
