"""What is fuzzed: bytes as requests and as messages of a gateway, as engines' streams, and as files of operators.

Used by `benchmarks.fuzz`, which looks for new inputs, and by the test that replays those that were kept.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from router._gen import budget_router_pb2 as pb
from router._gen import external_processor_pb2 as ext_proc
from router.admission.identity import Call
from router.admission.tenants import Tenants
from router.backends.dialects import DIALECTS
from router.backends.failures import MappedErrors
from router.backends.http import Chunk
from router.backends.sse import Bounds, EventReader
from router.backends.stream_state import StreamState
from router.domain import GenerationRequest, Prompt, ReasoningBudget
from router.envoy.budget_fields import BudgetFields
from router.envoy.decider import GatewayDecider
from router.envoy.gateway import Gateway
from router.envoy.processor import ExternalProcessor
from router.envoy.watcher import Watcher
from router.errors import BackendError, RouterError
from router.routing.explain import Explainer
from router.rpc.boundary import Exchange, on_the_wire
from router.rpc.parsing import parser
from router.rpc.servicer import WIRE, BudgetRouterServicer
from router.rpc.status import to_status
from tests.support import fuzz_files, fuzz_http
from tests.support.fakes import LIMITS, MODEL, ListLog, RecordingObserver, router_of

METHODS = tuple(pb.DESCRIPTOR.services_by_name["BudgetRouterService"].methods)
BUG = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
MARK = b"\xff\xfe\xfd\xfc"
"""Between the messages of a gateway: no valid message begins or ends so."""

FORGET = 1_000
"""Requests after which the fakes are made anew, which keep everything."""

_loop = asyncio.new_event_loop()
_PARSERS = {method.name: parser(method.input_type) for method in METHODS}
_state: dict[str, Any] = {"left": 0, "processor_left": 0}


def request(data: bytes) -> str:
    """A request whose method its first byte picks; the status that it is answered with."""
    method = METHODS[data[0] % len(METHODS)] if data else METHODS[0]
    try:
        message = data[1:] if method.name in WIRE else _loop.run_until_complete(_PARSERS[method.name](data[1:]))
        _loop.run_until_complete(_answered(getattr(_servicer(), method.name), message, method.server_streaming))
    except RouterError as error:
        status = to_status(error)
        assert status.code not in BUG, (method.name, data, error)
        return str(status.code.name)
    return "OK"


def stream(data: bytes) -> str:
    """Server-sent events in the words of the engine that the first byte picks; how they are taken."""
    kinds = sorted(DIALECTS)
    dialect = DIALECTS[kinds[data[0] % len(kinds)] if data else kinds[0]]
    state = StreamState(dialect)
    try:
        chunks, ending = _loop.run_until_complete(_events(data[1:]))
        state.read(chunks, 64)
        with MappedErrors():
            if dialect.completions is not None:
                for chunk in chunks:
                    dialect.completions.piece(chunk)
        state.completion(GenerationRequest(Prompt.of("x"), ReasoningBudget("64", 64)))
        if ending is not None:
            raise ending
    except BackendError as error:
        return str(error)
    return "OK"


def gateway(data: bytes) -> str:
    """Messages of Envoy, divided by a mark of four bytes; what became of the request, or the status of the call."""
    exchange = _Exchange(data.split(MARK))
    try:
        exchange.said.append(_loop.run_until_complete(_processor().process(exchange, Call())))
    except RouterError as error:
        status = to_status(error)
        assert status.code not in BUG, (data, error)
        return str(status.code.name)
    return (
        "OK"
        if any(ext_proc.ProcessingResponse.FromString(one).HasField("dynamic_metadata") for one in exchange.said)
        else "passed"
    )


class _Exchange(Exchange):
    """A call whose messages are all there."""

    def __init__(self, messages: list[bytes]) -> None:
        self._messages = messages
        self.said: list[bytes] = []

    async def read(self) -> bytes | None:
        return self._messages.pop(0) if self._messages else None

    async def write(self, data: bytes) -> None:
        self.said.append(data)


async def _events(data: bytes) -> tuple[list[Chunk], BackendError | None]:
    """The events of a stream that brings `data`, and the error that it ends with."""
    arriving, chunks = [b"", data + b"\n"], []

    async def read() -> bytes:
        return arriving.pop()

    reader = EventReader(read, Bounds.of(64, 0), "/")
    try:
        while found := await reader.next():
            chunks += found
    except BackendError as error:
        return chunks, error
    return chunks, None


TARGETS: dict[str, Callable[[bytes], str]] = {
    "requests": request,
    "gateway": gateway,
    "http": fuzz_http.http,
    "streams": stream,
    "manifests": fuzz_files.manifest,
    "tenants": fuzz_files.tenants_file,
}


def _servicer() -> BudgetRouterServicer:
    if not _state["left"]:
        log = ListLog()
        router = router_of(log=log)
        _state.update(left=FORGET, servicer=BudgetRouterServicer(router, Explainer(router, log), LIMITS))
    _state["left"] -= 1
    servicer: BudgetRouterServicer = _state["servicer"]
    return servicer


def _processor() -> ExternalProcessor:
    if not _state["processor_left"]:
        router, observer = router_of(), RecordingObserver()
        engines = {MODEL: BudgetFields(MODEL, DIALECTS["vllm"], None)}
        options = Gateway(engines, 60.0, True, "x-tenant", True)
        watcher = Watcher(router, ListLog(), Tenants({}), {MODEL: DIALECTS["vllm"]}, observer)
        decider = GatewayDecider(router, Tenants({}), LIMITS, options, observer, watcher.expect)
        _state.update(processor_left=FORGET, processor=ExternalProcessor(decider, watcher, response_headers=True))
    _state["processor_left"] -= 1
    processor: ExternalProcessor = _state["processor"]
    return processor


async def _answered(method: Any, message: Any, streams: bool) -> None:
    if streams:
        await method(message, Call(), _Exchange([]).write)
    else:
        on_the_wire(await method(message, Call()))
