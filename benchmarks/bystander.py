"""Another tenant's calls during an attack, a process of its own: `python -m benchmarks.bystander ADDRESS KEY`.

It decides on a schedule and generates one answer after another, over a connection of its own, until standard input
ends. It then prints as JSON how many calls it made, how many failed, and its longest pause. A pause is the time between
a call and its reply, or between two events of a stream; a late call counts from its scheduled time.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

import grpc

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc

DECIDE_SECONDS, GENERATE_SECONDS = 0.02, 0.2
"""Seconds from one call to the next."""

PATIENCE = 15.0
"""Seconds after which a call counts as failed."""


@dataclass
class Seen:
    """How the calls went. Pauses are in milliseconds."""

    calls: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    decide_ms: float = 0.0
    generate_ms: float = 0.0

    def pause(self, kind: str, since: float) -> float:
        """Count the pause since then; returns the time."""
        now = time.perf_counter()
        setattr(self, kind, max(getattr(self, kind), (now - since) * 1e3))
        return now


class Bystander:
    """One tenant that behaves well, with a stub and the metadata of its key."""

    def __init__(self, stub: Any, key: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {key}"),)
        self.seen = Seen()

    async def decide(self, number: int, due: float) -> None:
        """One decision on a fresh prompt, which was due at that time of perf_counter."""
        request = pb.DecideRequest(messages=_turn(number))
        await self._counted(self._stub.Decide(request, metadata=self._metadata, timeout=PATIENCE))
        self.seen.pause("decide_ms", due)

    async def generate(self, number: int, due: float) -> None:
        """One short answer, as `decide`."""
        request = pb.GenerateRequest(messages=_turn(number), options=pb.RoutingOptions(rung="16"))
        call = self._stub.Generate(request, metadata=self._metadata, timeout=PATIENCE)
        await self._counted(self._read(call, due))

    async def _read(self, call: AsyncIterator[Any], since: float) -> None:
        async for _ in call:
            since = self.seen.pause("generate_ms", since)

    async def _counted(self, call: Any) -> None:
        self.seen.calls += 1
        try:
            await call
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            self.seen.failed[status] = self.seen.failed.get(status, 0) + 1


def _turn(number: int) -> list[pb.Message]:
    return [pb.Message(role=pb.ROLE_USER, content=f"{number} + {number % 89} =")]


async def _decisions(bystander: Bystander, over: asyncio.Event) -> None:
    """Decisions on a schedule, whether or not the earlier ones were answered."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as calls:
        for number in count():
            due = began + number * DECIDE_SECONDS
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            if over.is_set():
                return
            calls.create_task(bystander.decide(number, due))


async def _generations(bystander: Bystander, over: asyncio.Event) -> None:
    """One answer after another."""
    number = 0
    while not over.is_set():
        await bystander.generate(number := number + 1, time.perf_counter())
        await asyncio.sleep(GENERATE_SECONDS)


async def _until_told(over: asyncio.Event) -> None:
    await asyncio.to_thread(sys.stdin.read)
    over.set()


async def main(address: str, key: str, generates: bool) -> Seen:
    """Call until standard input ends. Prints a line once the service has answered both kinds of calls."""
    over = asyncio.Event()
    async with grpc.aio.insecure_channel(address) as channel:
        bystander = Bystander(pb_grpc.BudgetRouterServiceStub(channel), key)
        await bystander.decide(0, time.perf_counter())
        if generates:
            await bystander.generate(0, time.perf_counter())
        assert not bystander.seen.failed, bystander.seen
        bystander.seen = Seen()
        print("listening on nothing", file=sys.stderr, flush=True)
        parts = [_decisions(bystander, over), _until_told(over)]
        await asyncio.gather(*parts, *([_generations(bystander, over)] if generates else []))
        return bystander.seen


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(main(sys.argv[1], sys.argv[2], len(sys.argv) < 4)))))
