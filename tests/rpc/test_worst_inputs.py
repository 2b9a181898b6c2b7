"""Nobody holds up the event loop: the worst inputs within the limits, through the real server, cost short turns each.

What is measured is the longest callback of the loop, in steps of about a microsecond.
"""

import asyncio
import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from router._gen import budget_router_pb2 as pb
from router.admission.tenants import Tenants
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.bundle.manifest import Bundle
from router.outcomes.sqlite import SqliteOutcomes
from router.requests.limits import MAX_IMAGE_BYTES, MAX_MESSAGE_BYTES
from router.requests.schemas import MAX_SCHEMA_BYTES
from router.routing.explain import Explainer
from router.rpc.boundary import Boundary
from router.rpc.identity import TenantGuard
from router.rpc.server import RouterServer, Service
from router.rpc.servicer import BudgetRouterServicer
from router.scoring.memory_cache import MemoryCache
from router.scoring.onnx import OnnxClassifier
from router.telemetry.logs import LogLines, Observers
from router.telemetry.metrics import Metrics
from tests.rpc.conftest import ROUTING
from tests.support.attacks import endless_continuation
from tests.support.fakes import LIMITS, policy_of, router_of
from tests.support.turns import MeasuredLoop

PAUSE = 50_000
"""Longest turn in steps. On a core with nothing else to do, those seen take 20 ms at most; tests rarely have one."""

COPYING = 4 * PAUSE
"""The same of 20 MB, which are copied: memory is shared with whatever else the machine does, so a copy takes longer."""

PATIENCE = 120.0
MIB = 1 << 20
USER, ASSISTANT = pb.ROLE_USER, pb.ROLE_ASSISTANT
MARKS = "\u0300\u0316"
"""Two combining marks that must be sorted, and so exchanged, however many there are."""


@dataclass(frozen=True)
class Measured:
    """A service with everything embedded, whose loop is measured, in a thread of its own."""

    loop: MeasuredLoop
    channel: Any
    address: str

    def longest_turn(self, method: str, message: Message | bytes) -> float:
        """Steps of the longest turn while a call is answered, or refused by INVALID_ARGUMENT."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        return self.longest_turn_during(lambda: self._call(method, data))

    def longest_turn_during(self, work: Callable[[], None]) -> float:
        """Steps of the longest turn while some work is done in this thread."""
        self._on_the_loop(self.loop.begin)
        work()
        return self._on_the_loop(self.loop.longest)

    def _call(self, method: str, data: bytes) -> None:
        try:
            if method == "Generate":
                list(self.channel.unary_stream(f"{ROUTING}/{method}")(data, timeout=PATIENCE))
            else:
                self.channel.unary_unary(f"{ROUTING}/{method}")(data, timeout=PATIENCE)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    def _on_the_loop(self, function: Callable[[], float | None]) -> float:
        found = Future[float]()
        self.loop.call_soon_threadsafe(lambda: found.set_result(function() or 0.0))
        return found.result(PATIENCE)


@pytest.fixture(scope="module")
def service(bundle: Bundle, pocket_model: PocketModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    loop, port, stop = MeasuredLoop(), Future[int](), asyncio.Event()
    directory = tmp_path_factory.mktemp("outcomes")
    thread = Thread(target=lambda: loop.run_until_complete(_serve(bundle, pocket_model, directory, port, stop)))
    thread.start()
    options = [("grpc.max_receive_message_length", -1)]
    address = f"127.0.0.1:{port.result(PATIENCE)}"
    with grpc.insecure_channel(address, options) as channel:
        measured = Measured(loop, channel, address)
        measured.longest_turn("Decide", decide("what is used for the first time takes longer"))
        # The collector would walk through all that the tests have loaded.
        gc.disable()
        yield measured
        gc.enable()
    loop.call_soon_threadsafe(stop.set)
    thread.join(PATIENCE)
    loop.close()


async def _serve(bundle: Bundle, model: PocketModel, directory: Path, port: "Future[int]", stop: asyncio.Event) -> None:
    observer = Observers([LogLines(lambda line: None), Metrics(CollectorRegistry())])
    log, backend = SqliteOutcomes(directory / "outcomes.sqlite", observer, texts=True), PocketBackend(model)
    router = router_of(
        classifier=OnnxClassifier(bundle),
        cache=MemoryCache(10_000, 64 << 20),
        policy=policy_of(bundle.manifest.ladder, bundle.manifest.certificates),
        backend=backend,
        log=log,
        observer=observer,
    )
    largest = MAX_MESSAGE_BYTES + MAX_IMAGE_BYTES
    routing = Service.routing(BudgetRouterServicer(router, Explainer(router, log), LIMITS), largest)
    boundary = Boundary(TenantGuard(Tenants({})), 100, observer)
    server = RouterServer(routing, boundary, "127.0.0.1:0", None, router.health)
    await server.start()
    port.set_result(server.port)
    await stop.wait()
    await server.drain(0)
    await log.close()
    backend.close()


def decide(*texts: str) -> pb.DecideRequest:
    return pb.DecideRequest(messages=[pb.Message(role=USER, content=text) for text in texts])


def batch(prompts: Sequence[pb.DecideRequest]) -> pb.DecideBatchRequest:
    return pb.DecideBatchRequest(requests=prompts)


def numbered(text: str, count: int = 1_024) -> pb.DecideBatchRequest:
    """A batch of different prompts."""
    return batch([decide(f"{number} {text}") for number in range(count)])


def attached(**fields: object) -> pb.DecideRequest:
    """A conversation with a turn of these fields."""
    role = USER if "image_urls" in fields or "parts" in fields else ASSISTANT
    turn = pb.Message(role=role, **fields)  # type: ignore[arg-type]
    return pb.DecideRequest(messages=[turn, pb.Message(role=USER, content="x")])


def drawn(first: int, last: int, length: int) -> str:
    """Characters of a range, at random."""
    choose = random.Random(1).randrange
    return "".join(chr(choose(first, last)) for _ in range(length))


def words(count: int) -> str:
    return " ".join(f"{random.Random(i).randrange(1 << 40):x}" for i in range(count))


DECIDE = {
    "a letter with 16,000 marks": lambda: decide("a" + MARKS * 8_000),
    "a letter with 500,000 marks": lambda: decide("a" + MARKS * 250_000),
    "marks in runs just short enough": lambda: decide(("a" + MARKS * 15) * (MIB // 61)),
    "letters and marks apart": lambda: decide("e\u0301" * (MIB // 3)),
    "syllables in parts": lambda: decide("\u1100\u1161\u11a8" * (MIB // 9)),
    "characters that become three": lambda: decide("\U0001d160" * (MIB // 4)),
    "one word": lambda: decide("a" * MIB),
    "no word": lambda: decide(" " * (MIB - 1) + "."),
    "blank": lambda: decide("\u2003" * (MIB // 3)),
    "a final letter with modifiers": lambda: decide("Σʰʰʰʰ" * 10_000),
    "words never seen": lambda: decide(words(3_000)),
    "words of one letter, all different": lambda: decide(" ".join(map(chr, range(0x4E00, 0x6E00)))),
    "letters without spaces": lambda: decide(drawn(97, 123, 16_384)),
    "ideographs without spaces": lambda: decide(drawn(0x4E00, 0x9FFF, 16_384)),
    "emoji without spaces": lambda: decide(drawn(0x1F300, 0x1F600, 16_384)),
    "double spaces": lambda: decide("a  b" * 4_096),
    "1,000 messages": lambda: decide(*["e\u0301" * 349] * 1_000),
    "1,000 messages of marks": lambda: decide(*[f"{i}" + MARKS * 250 for i in range(1_000)]),
    "500,000 tool calls": lambda: attached(content="c", tool_calls=[pb.ToolCall()] * 500_000),
    "95,000 images": lambda: attached(image_urls=["https://a"] * 95_000),
    "an image of zeros": lambda: attached(image_urls=["data:image/" + "\0" * (MIB - 50)]),
    "an image of 20 MB": lambda: attached(image_urls=["data:image/" + "A" * (20 * MIB - 50)]),
    "a part of 20 MB": lambda: attached(parts=[pb.ContentPart(image_url="data:image/" + "A" * (20 * MIB - 50))]),
    "45,000 parts": lambda: attached(parts=[pb.ContentPart(text="a")] * 45_000),
    "a thought of marks": lambda: attached(content="c", reasoning="a" + MARKS * (MIB // 4 - 50)),
    "arguments of marks": lambda: attached(content="c", tool_calls=[pb.ToolCall(arguments=MARKS * (MIB // 4 - 50))]),
    "a name of 4 MB": lambda: pb.DecideRequest(messages=decide("x").messages, tenant="a" * 4_000_000),
    "a prompt of 4 MB": lambda: decide("a" * 4_000_000),
}
BATCHES: Mapping[str, Callable[[], Message | bytes]] = {
    "plain": lambda: numbered("people sit around a table: how many ways?"),
    "long ones": lambda: numbered(words(1_200), 256),
    "marks": lambda: numbered("a" + MARKS * 4_000, 256),
    "words of one letter": lambda: numbered(" ".join(map(chr, range(0x4E00, 0x5E00))), 250),
    "4 MB": lambda: numbered("é" * (MIB // 2 - 50), 3),
    "30,000 messages": lambda: batch([decide(*[f"{i}"] * 30) for i in range(1_000)]),
    "the last one is wrong": lambda: batch([*[decide(*["a"] * 30)] * 1_000, decide()]),
    "too many": lambda: batch([decide()] * 20_000),
    "images of 20 MB": lambda: batch([attached(image_urls=["data:image/" + "A" * (2 * MIB - 50)])] * 10),
    "2 million empty ones": lambda: b"\n\0" * (2 * MIB - 100),
    "one of 2 million empty messages": lambda: batch([pb.DecideRequest.FromString(b"\n\0" * 2_000_000)]),
    "as many fields as there may be": lambda: batch([decide(*["ab"] * 33)] * 1_000 + [decide("a" * 500_000)]),
}
EXPLAINED = {
    "350,000 words": lambda: decide("ab " * (MIB // 3)),
    "48 long words": lambda: decide(" ".join(f"{i}" + "é" * 330 for i in range(48))),
    "words never seen": lambda: decide(words(80_000)),
    "words before marks": lambda: decide(" ".join("bcdefghijklmnop") + MARKS * 8_000),
    "words like expressions": lambda: decide("(a+)+$ " * 2_000 + "_" * 10_000),
}
GENERATED = {
    "one word": lambda: "a" * MIB,
    "letters": lambda: drawn(97, 123, MIB),
    "marks": lambda: "a" + MARKS * (MIB // 4 - 1),
}
SCHEMAS = {
    "empty lists": '{"a":[' + "[]," * 400_000 + "[]]}",
    "empty objects": '{"a":[' + "{}," * 400_000 + "{}]}",
    "a deep list": '{"a":' + "[" * 600_000 + "]" * 600_000 + "}",
    "deep lists": '{"a":[' + ",".join(["[" * 900 + "]" * 900] * 500) + "]}",
    "long numbers": '{"a":[' + ",".join(["9" * 4_299] * 250) + "]}",
    "one number": '{"a":' + "9" * MIB + "}",
    "one fraction": '{"a":0.' + "9" * MIB + "}",
    "many names": "{" + ",".join(f'"{i}":1' for i in range(100_000)) + "}",
    "the same name": "{" + ",".join(['"a":1'] * 100_000) + "}",
}


def most(name: str) -> float:
    """Steps of the longest turn that an input may take."""
    return COPYING if "20 MB" in name else PAUSE


@pytest.mark.parametrize("name", DECIDE)
def test_no_prompt_holds_up_others(service: Measured, name: str) -> None:
    assert service.longest_turn("Decide", DECIDE[name]()) < most(name)


@pytest.mark.parametrize("name", BATCHES)
def test_no_batch_holds_up_others(service: Measured, name: str) -> None:
    assert service.longest_turn("DecideBatch", BATCHES[name]()) < most(name)


@pytest.mark.parametrize("name", EXPLAINED)
def test_no_explanation_holds_up_others(service: Measured, name: str) -> None:
    assert service.longest_turn("Explain", pb.ExplainRequest(request=EXPLAINED[name]())) < PAUSE


@pytest.mark.parametrize("name", GENERATED)
def test_no_generation_holds_up_others(service: Measured, name: str) -> None:
    request = pb.GenerateRequest(messages=decide(GENERATED[name]()).messages)
    assert service.longest_turn("Generate", request) < PAUSE


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("size", [MAX_SCHEMA_BYTES, MIB])
def test_no_tool_holds_up_others(service: Measured, name: str, size: int) -> None:
    tool = pb.Tool(name="t", parameters=_shortened(SCHEMAS[name], size))
    request = pb.GenerateRequest(messages=decide("hi").messages, tools=[tool] * (1 if size == MIB else 4))
    assert service.longest_turn("Generate", request) < PAUSE


def test_no_headers_hold_up_others(service: Measured) -> None:
    """123,000 of them: gRPC takes so many of a client that has not acknowledged its limit."""
    assert service.longest_turn_during(lambda: asyncio.run(endless_continuation(service.address))) < PAUSE


def _shortened(schema: str, size: int) -> str:
    """A schema of at most so many bytes that is read to its end, as far as it can be."""
    if len(schema) <= size:
        return schema
    cut = schema[: size - 2].rpartition(",")[0]
    return cut + "]}" if cut.count("[") > cut.count("]") else (cut or schema[: size - 2]) + "}"
