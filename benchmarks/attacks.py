"""The attacks of `make attack`, each a process of its own: `python -m benchmarks.attacks NAME ADDRESS KEY SECONDS`.

An attack goes on until its time is up, with every caller asking again as soon as it is answered. It prints as JSON how
its calls ended. Everything goes to an address of the loopback interface that `benchmarks.attack` has started.
"""

import asyncio
import json
import os
import random
import string
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2

from benchmarks.floods import FLOODS
from router._gen import budget_router_pb2 as pb
from tests.support import attacks as support
from tests.support.hostile_engine import HOSTILE, LISTED

SERVICE = "/budget_router.v1.BudgetRouterService/"
PROMPT_BYTES, BATCH, MESSAGE_BYTES = 1 << 20, 1_024, 4_000_000
"""The service's limits: a prompt, requests in a batch, and nearly a message."""

PATIENCE = 30.0
AT_ONCE = 4
"""Floods at once, each on a connection of its own."""

Flood = Callable[..., Awaitable[None]]
"""Attacks an address; some take metadata as well."""

WITH_KEY: dict[str, Flood] = {
    "exploding message": support.exploding_message,
    "gzip bombs": support.gzip_bombs,
    "unfinished messages": support.unfinished_messages,
    "slow reader": support.slow_reader,
}
"""Floods that a tenant can carry further than a stranger."""


@dataclass
class Attacker:
    """Where the service is, the attacker's own key ("" = none), and how its calls ended."""

    address: str
    key: str
    endings: Counter[str] = field(default_factory=Counter)

    async def repeat(self, at_once: int, one: Callable[[int, Any], Awaitable[Any]]) -> None:
        """Run `at_once` callers with a connection each; `one` gets the number of the call and the channel."""
        numbers = count()
        unlimited = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]

        async def caller() -> None:
            async with grpc.aio.insecure_channel(self.address, unlimited) as channel:
                while True:
                    await self.counted(one(next(numbers), channel))

        await asyncio.gather(*(caller() for _ in range(at_once)))

    async def counted(self, call: Awaitable[Any]) -> None:
        """Wait for a call and count its ending."""
        try:
            await call
            self.endings["OK"] += 1
        except grpc.aio.AioRpcError as error:
            self.endings[error.code().name] += 1

    async def call(self, channel: Any, method: str, request: Message | bytes) -> None:
        """One call with a unary reply."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        await channel.unary_unary(method)(body, metadata=self.metadata, timeout=PATIENCE)

    async def stream(self, channel: Any, method: str, request: Message | bytes) -> None:
        """One call with a stream of replies, read to its end."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        async for _ in channel.unary_stream(method)(body, metadata=self.metadata, timeout=PATIENCE):
            pass

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The attacker's credentials."""
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()


async def nothing(_: Attacker) -> None:
    """No attack: the machine and the bystander alone."""
    await asyncio.Event().wait()


async def reflection(attacker: Attacker) -> None:
    """Questions about the API without an end, and about names of 4 MB."""
    small = reflection_pb2.ServerReflectionRequest(file_containing_symbol="budget_router.v1.BudgetRouterService")
    large = reflection_pb2.ServerReflectionRequest(file_containing_symbol="a" * MESSAGE_BYTES)

    async def one(number: int, channel: Any) -> None:
        call = channel.stream_stream(support.REFLECTION)(timeout=PATIENCE)
        for _ in range(1 if number % 8 == 0 else 1_000):
            await call.write((small if number % 8 else large).SerializeToString())
            await call.read()

    await attacker.repeat(20, one)


async def large_prompts(attacker: Attacker) -> None:
    """Decide and Generate of 4 MB without a key."""
    body = pb.DecideRequest(messages=_turn("a " * (MESSAGE_BYTES // 2))).SerializeToString()
    await attacker.repeat(16, lambda _, channel: attacker.call(channel, SERVICE + "Decide", body))


async def empty_messages(attacker: Attacker) -> None:
    """Decide of 4 MB that would become two million messages."""
    body = support.empty_messages()
    await attacker.repeat(AT_ONCE, lambda _, channel: attacker.call(channel, SERVICE + "Decide", body))


async def guesses(attacker: Attacker) -> None:
    """Decide with keys that are wrong."""
    body = pb.DecideRequest(messages=_turn("2 + 2 =")).SerializeToString()

    async def one(number: int, channel: Any) -> None:
        metadata = (("authorization", f"Bearer {number}"),)
        await channel.unary_unary(SERVICE + "Decide")(body, metadata=metadata, timeout=PATIENCE)

    await attacker.repeat(16, one)


async def marks(attacker: Attacker) -> None:
    """One letter with half a million combining marks, to decide, explain and answer."""
    text = "a" + "\u0301\u0323" * (PROMPT_BYTES // 4 - 1)
    await _asked(attacker, text)


async def words(attacker: Attacker) -> None:
    """Prompts of 1 MiB of words that no vocabulary holds."""
    text = "".join(random.Random(0).choices(string.ascii_letters + "äß漢🙂  ", k=PROMPT_BYTES // 2))
    await _asked(attacker, text[: PROMPT_BYTES // 2])


async def batches(attacker: Attacker) -> None:
    """Batches at every limit: 1,024 requests, 4 MB."""
    each = "word " * (MESSAGE_BYTES // BATCH // 5 - 8)
    messages = [_turn(f"{each}{number}") for number in range(BATCH)]
    body = pb.DecideBatchRequest(requests=[pb.DecideRequest(messages=turn) for turn in messages]).SerializeToString()
    await attacker.repeat(4, lambda _, channel: attacker.call(channel, SERVICE + "DecideBatch", body))


async def nested_tools(attacker: Attacker) -> None:
    """Tools and calls of tools whose JSON is nested half a million deep."""
    deep = "[" * (PROMPT_BYTES // 2 - 1_000)
    calls = [pb.ToolCall(id="1", name="f", arguments='{"a":' * 200_000)]
    turns = [*_turn("x"), pb.Message(role=pb.ROLE_ASSISTANT, tool_calls=calls)]
    offered = pb.GenerateRequest(messages=_turn("2 + 2 ="), tools=[pb.Tool(name="f", parameters='{"a":' + deep)])
    called = pb.GenerateRequest(messages=turns)

    async def one(number: int, channel: Any) -> None:
        await attacker.stream(channel, SERVICE + "Generate", (offered, called)[number % 2])

    await attacker.repeat(16, one)


async def conversations(attacker: Attacker) -> None:
    """A new conversation with every call, under names of 100 letters."""

    async def one(number: int, channel: Any) -> None:
        options = pb.RoutingOptions(conversation_id=f"{number:0100d}")
        request = pb.DecideRequest(messages=_turn(f"{number} + 1 ="), options=options)
        await attacker.call(channel, SERVICE + "Decide", request)

    await attacker.repeat(32, one)


async def unread_answers(attacker: Attacker) -> None:
    """A thousand answers of which nobody reads more than the first event."""
    request = pb.GenerateRequest(messages=_turn("12 * 34 ="), options=pb.RoutingOptions(rung="256"))
    body, held = request.SerializeToString(), []

    async def one(_: int, channel: Any) -> None:
        call = channel.unary_stream(SERVICE + "Generate")(body, metadata=attacker.metadata)
        held.append(call)
        await call.read()
        if len(held) > 1_000:
            held.pop(0).cancel()

    await attacker.repeat(16, one)


def engine(kind: str) -> Callable[[Attacker], Awaitable[None]]:
    """An attack by an engine that answers this attacker's prompts in that way."""

    async def run(attacker: Attacker) -> None:
        async def one(number: int, channel: Any) -> None:
            request = pb.GenerateRequest(messages=_turn(f"{number}:{kind}"), options=pb.RoutingOptions(rung="64"))
            await attacker.stream(channel, SERVICE + "Generate", request)

        await attacker.repeat(4, one)

    run.__doc__ = f"An engine that sends: {kind}."
    return run


async def _asked(attacker: Attacker, text: str) -> None:
    """One long prompt to every method that reads prompts, never twice the same."""

    async def one(number: int, channel: Any) -> None:
        turn = _turn(f"{number}{text[len(str(number)) :]}")
        match number % 3:
            case 0:
                await attacker.call(channel, SERVICE + "Decide", pb.DecideRequest(messages=turn))
            case 1:
                request = pb.ExplainRequest(request=pb.DecideRequest(messages=turn))
                await attacker.call(channel, SERVICE + "Explain", request)
            case _:
                await attacker.stream(channel, SERVICE + "Generate", pb.GenerateRequest(messages=turn))

    await attacker.repeat(4, one)


def _turn(text: str) -> list[pb.Message]:
    return [pb.Message(role=pb.ROLE_USER, content=text)]


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        run: attacks until it is cancelled.
        key: the attacker has a key, as a tenant.
        hostile: the service stands in front of the hostile engine.
        engine_is_up: other tenants' answers are expected meanwhile, beside decisions.
    """

    run: Callable[[Attacker], Awaitable[None]]
    key: bool = False
    hostile: bool = False
    engine_is_up: bool = True


def flood(one: Flood, metadata: bool = False) -> Callable[[Attacker], Awaitable[None]]:
    """An attack of `tests.support.attacks`, again and again on AT_ONCE connections; with the key if `metadata`."""

    async def run(attacker: Attacker) -> None:
        async def caller() -> None:
            while True:
                with suppress(OSError, grpc.aio.AioRpcError):
                    await (one(attacker.address, attacker.metadata) if metadata else one(attacker.address))
                attacker.endings["rounds"] += 1
                await asyncio.sleep(0.01)

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))

    return run


ATTACKS: dict[str, Attack] = {
    "no attack": Attack(nothing),
    **{name.replace("_", " "): Attack(flood(one)) for name, one in [*support.UNAUTHENTICATED.items(), *FLOODS.items()]},
    "reflection": Attack(reflection),
    "large prompts": Attack(large_prompts),
    "wrong keys": Attack(guesses),
    **{f"{name}, key": Attack(flood(one, metadata=True), key=True) for name, one in WITH_KEY.items()},
    "empty messages": Attack(empty_messages, key=True),
    "combining marks": Attack(marks, key=True),
    "unknown words": Attack(words, key=True),
    "batches": Attack(batches, key=True),
    "nested tools": Attack(nested_tools, key=True),
    "conversations": Attack(conversations, key=True),
    "unread answers": Attack(unread_answers, key=True),
    **{f"engine: {kind}": Attack(engine(kind), key=True, hostile=True) for kind in HOSTILE},
    f"engine: {LISTED}": Attack(engine(LISTED), key=True, hostile=True, engine_is_up=False),
}
"""Every attack by name. Those without a key come first."""


async def main(name: str, address: str, key: str, seconds: float) -> None:
    """Attack for so many seconds, print how the calls ended, and end the process."""
    attacker = Attacker(address, key)
    attack = asyncio.ensure_future(ATTACKS[name].run(attacker))
    await asyncio.wait([attack], timeout=seconds)
    if attack.done():
        attack.result()  # it went wrong: an attack has no end of its own
    print(json.dumps(attacker.endings), flush=True)
    os._exit(0)  # connections that the service does not read from could not be closed


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
