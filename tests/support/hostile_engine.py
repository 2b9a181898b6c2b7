"""A simulated vLLM that turns hostile where a prompt asks for it: `python -m tests.support.hostile_engine`.

It passes the canary and answers everyone as the simulator does. A prompt that ends with the name of one of HOSTILE is
answered by that function instead. `LISTED` turns the list of models into a gzip bomb, until the process ends.
"""

import asyncio
import json
import logging
import sys
import zlib
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from tests.support.simulators import ENGINES, Simulator

LISTED = "list of models"
EVENTS = {"Content-Type": "text/event-stream"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def reasoning(request: web.Request) -> web.StreamResponse:
    """A thought of small pieces without an end, as fast as it is read."""
    return await _endless(request, _event(reasoning="step "))


async def content(request: web.Request) -> web.StreamResponse:
    """An answer of small pieces without an end."""
    return await _endless(request, _event(content="word "))


async def lines(request: web.Request) -> web.StreamResponse:
    """Events of nearly 1 MiB each, without an end."""
    return await _endless(request, _event(reasoning="a" * ((1 << 20) - 1_000)))


async def one_line(request: web.Request) -> web.StreamResponse:
    """One event without an end."""
    return await _endless(request, b"a" * 65_536, b'data: {"choices": [{"delta": {"reasoning": "')


async def models(request: web.Request) -> web.StreamResponse:
    """A list of models without an end, of which every KB unpacks to a MB."""
    packer = zlib.compressobj(9, wbits=31)
    begin = packer.compress(b'{"data": [], "more": "') + packer.flush(zlib.Z_FULL_FLUSH)
    # Behind a full flush nothing refers to what came before, so the same bytes can follow again and again.
    block = packer.compress(b"a" * (8 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return await _endless(request, block, begin, {"Content-Type": "application/json", "Content-Encoding": "gzip"})


async def headers(request: web.Request) -> web.StreamResponse:
    """Headers without an end."""
    transport = request.transport
    assert isinstance(transport, asyncio.Transport)
    transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    number = 0
    while not transport.is_closing():
        # In slices that the transport sends before the next, or this process would hold them all.
        if transport.get_write_buffer_size() < 1 << 20:
            transport.write(b"".join(b"X-%d: %s\r\n" % (number + i, b"a" * 1_000) for i in range(64)))
            number += 64
        await asyncio.sleep(0)
    raise ConnectionResetError


HOSTILE: dict[str, Handler] = {
    "endless reasoning": reasoning,
    "endless content": content,
    "1 MiB lines": lines,
    "one endless line": one_line,
    "endless headers": headers,
}


def application() -> web.Application:
    """The engine."""
    app = ENGINES["vllm"](Simulator("vllm"))
    turned = asyncio.Event()

    @web.middleware
    async def hostile(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/v1/models" and turned.is_set():
            return await models(request)
        wanted = await _wanted(request)
        if wanted == LISTED:
            turned.set()
        return await HOSTILE.get(wanted, handler)(request)

    app.middlewares.append(hostile)
    return app


async def _wanted(request: web.Request) -> str:
    """The end of the last message, behind a colon; "" for requests without messages."""
    if not request.path.endswith("/chat/completions"):
        return ""
    said = (await request.json())["messages"][-1]["content"]
    return str(said).rpartition(":")[2]


def _event(**delta: str) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


async def _endless(
    request: web.Request, piece: bytes, begin: bytes = b"", headers: Mapping[str, str] = EVENTS
) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(begin)
    many = piece * max(65_536 // len(piece), 1)
    while True:
        await response.write(many)
        await asyncio.sleep(0)


async def main() -> None:
    """Serve on a free port of the loopback interface until the process is stopped."""
    logging.disable()  # nobody reads what each broken answer logs, and a pipe that is full would stop this process
    runner = web.AppRunner(application(), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print("listening on http://{}:{}".format(*runner.addresses[0][:2]), file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
