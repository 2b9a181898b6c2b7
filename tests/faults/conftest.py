"""What the fault matrix needs: a whole service in this process, ways to spoil what it depends on, and a verdict."""

import asyncio
import json
import os
import re
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from router import settings
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.serving import app
from router.serving.parts import Parts
from tests.rpc.conftest import decide, generate
from tests.support.fakes import at_once
from tests.support.ports import free_port

PATIENCE = 30.0
"""How long a fault may take until its counter moves, and its end until all is as before. A busy machine is no fault."""

FOLLOW_SECONDS = 0.02

TABLE = "FAULTS_TABLE"
"""Environment variable that names a file: it gets one JSON line a cell, for the table in benchmarks/README.md."""


@dataclass
class Cell:
    """One cell of the matrix, as it turned out.

    Attributes:
        answered: requests that succeeded while the fault lasted.
        failed: those that did not, by status.
        needless: those of them that need not have failed.
        counter: the metric that told of the fault, and by how much it moved.
        recovery: seconds from the end of the fault until everything was as before.
    """

    dependency: str
    fault: str
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    needless: int = 0
    counter: str = ""
    moved: float = 0.0
    recovery: float = 0.0

    def verdict(self, seconds: float = PATIENCE) -> None:
        """Nothing failed that need not have, the fault was counted, and it took no longer than that to recover."""
        if table := os.environ.get(TABLE):
            with Path(table).open("a") as lines:
                lines.write(json.dumps(vars(self)) + "\n")
        assert self.needless == 0, self
        assert self.moved > 0, self
        assert self.recovery < seconds, self


@dataclass
class Scene:
    """A running service, and how to ask it; `timeout` in seconds, of every call."""

    address: str
    metrics: str
    routing: Any
    timeout: float | None = PATIENCE

    async def scraped(self, name: str) -> float:
        """The sum of the samples whose name and labels match."""

        def get() -> str:
            with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=PATIENCE) as response:
                text: str = response.read().decode()
            return text

        text = await asyncio.to_thread(get)
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    async def decided(self, number: int = 0) -> None:
        """A decision about a fresh prompt."""
        await self.routing.Decide(decide(f"{number} + {time.perf_counter_ns()} ="), timeout=self.timeout)

    async def generated(self, number: int = 0) -> None:
        """A generation from beginning to end. Small numbers need a short thought: most of a test's time is tokens."""
        options = pb.RoutingOptions(rung="16")
        prompt = f"{number % 10} + 4 ="
        last = None
        async for event in self.routing.Generate(generate(prompt, options=options), timeout=self.timeout):
            last = event.WhichOneof("event")
        assert last == "completion"

    async def under(
        self,
        cell: Cell,
        counter: str,
        *,
        requests: int = 24,
        unavoidable: Collection[str] = (),
        before: float | None = None,
    ) -> Cell:
        """Ask while the fault lasts, and see the counter move.

        Args:
            unavoidable: statuses that nobody could have prevented.
            before: the counter before the fault, where that has begun a while ago.
        """
        cell.counter = counter
        before = await self.scraped(counter) if before is None else before
        asks: list[Callable[[int], Awaitable[None]]] = [self.decided, self.generated]
        gate = asyncio.Semaphore(4)

        async def ask(number: int) -> None:
            async with gate:
                try:
                    await asks[number % 2](number)
                    cell.answered += 1
                except grpc.aio.AioRpcError as error:
                    cell.failed[error.code().name] += 1
                    cell.needless += error.code().name not in unavoidable

        await asyncio.gather(*(ask(number) for number in range(requests)))
        cell.moved = await self.moves(counter, before)
        return cell

    async def healthy(self, wanted: bool, name: str) -> None:
        """Wait until the health service says so of a part of the service."""
        request = health_pb2.HealthCheckRequest(service=name)
        status = health_pb2.HealthCheckResponse.SERVING if wanted else health_pb2.HealthCheckResponse.NOT_SERVING
        async with asyncio.timeout(PATIENCE), grpc.aio.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while (await stub.Check(request)).status != status:  # noqa: ASYNC110  it lies behind a call
                await asyncio.sleep(0.02)

    async def moves(self, counter: str, before: float) -> float:
        """Wait until a counter moves; returns by how much, 0 where it does not."""
        until = time.perf_counter() + PATIENCE
        while not (moved := await self.scraped(counter) - before) and time.perf_counter() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return moved

    async def recovered(self, cell: Cell, good: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Wait until it is as before, and give the verdict."""
        began = time.perf_counter()
        async with asyncio.timeout(PATIENCE):
            while not await self._good(good):  # noqa: ASYNC110  what is waited for lies in another process
                await asyncio.sleep(0.02)
        cell.recovery = round(time.perf_counter() - began, 3)
        cell.verdict()

    async def _good(self, good: Callable[[], Awaitable[bool]] | None) -> bool:
        try:
            await self.decided()
            await self.generated()
            return good is None or await good()
        except grpc.aio.AioRpcError:
            return False


@asynccontextmanager
async def scene(
    directory: Path, replaced: Callable[[Parts], Parts] = lambda parts: parts, /, **given: Any
) -> AsyncIterator[Scene]:
    """The whole service in this process; `replaced` may exchange its parts, and every call shows the `key` given."""
    key = given.pop("key", "")
    metrics = f"127.0.0.1:{free_port()}"
    defaults: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "metrics_listen": metrics,
        "outcomes": directory / "outcomes.sqlite",
        "audit_file": directory / "audit.json",
        "drain_seconds": 1,
    }
    async with app.running(settings.load(**defaults | given), at_once, replaced, FOLLOW_SECONDS) as ports:
        address = f"127.0.0.1:{ports.port}"
        async with grpc.aio.insecure_channel(address) as channel:
            stub = pb_grpc.BudgetRouterServiceStub(channel)
            running = Scene(address, metrics, Keyed(stub, key) if key else stub)
            await running.generated()
            yield running


class Keyed:
    """A stub whose every call shows a key."""

    def __init__(self, stub: Any, key: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {key}"),)

    def __getattr__(self, method: str) -> Any:
        return partial(getattr(self._stub, method), metadata=self._metadata)


class Proxy:
    """A TCP proxy whose `mode` says how it treats its clients: pass, slow, garbage, refuse."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.mode = "pass"
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Hang up on everyone."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Hang up on those who are connected."""
        for writer in list(self._open):
            writer.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        other = None
        try:
            if self.mode == "refuse":
                return
            from_server, other = await asyncio.open_connection("127.0.0.1", self._to)
            self._open.add(other)
            await asyncio.gather(self._pump(reader, other, False), self._pump(from_server, writer, True))
        except OSError:
            pass
        finally:
            for one in (writer, other):
                if one is not None:
                    self._open.discard(one)
                    one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.mode == "slow" and back:
                    await asyncio.sleep(0.2)
                writer.write(b"\x00 garbage\r\n" if self.mode == "garbage" and back else data)
                await writer.drain()
        writer.close()
