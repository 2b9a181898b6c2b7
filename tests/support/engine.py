"""A server of the OpenAI chat API that behaves as vLLM does, and ways in which it may not."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

MODEL = "tiny"
THOUGHT = [f"step{i} " for i in range(40)]
ANSWER = ["The ", "answer ", "is ", "4."]
PROMPT_TOKENS = 9
Stream = web.StreamResponse
Handler = Callable[[web.Request, dict[str, Any]], Awaitable[Stream]]


class Engine:
    """A server with vLLM's chat API; `handler` may be replaced by a fault.

    Attributes:
        bodies: every request body, in order.
        served: names of the models that it lists.
        disconnected: set when a client went away before its answer was complete.
    """

    def __init__(self) -> None:
        self.handler: Handler = well_behaved
        self.bodies: list[dict[str, Any]] = []
        self.disconnected = asyncio.Event()
        self.served = [MODEL]
        self.url = ""

    async def chat(self, request: web.Request) -> Stream:
        self.bodies.append(await request.json())
        try:
            return await self.handler(request, self.bodies[-1])
        except (ConnectionError, asyncio.CancelledError):
            self.disconnected.set()
            raise

    async def models(self, _: web.Request) -> Stream:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.served]})


async def events_to(request: web.Request, *chunks: dict[str, Any] | bytes, pause: float = 0.0) -> Stream:
    """Send server-sent events; bytes are sent as they are."""
    response = Stream(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for chunk in chunks:
        data = chunk if isinstance(chunk, bytes) else b"data: " + json.dumps(chunk).encode() + b"\n\n"
        await response.write(data)
        await asyncio.sleep(pause)
    return response


def delta(finish: str | None = None, **content: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": finish}]}


def usage(thinking: int, answer: int) -> dict[str, Any]:
    details = {"reasoning_tokens": thinking}
    total = thinking + answer
    counts = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": total, "completion_tokens_details": details}
    return {"choices": [], "usage": counts}


DONE = b"data: [DONE]\n\n"


async def well_behaved(request: web.Request, body: dict[str, Any]) -> Stream:
    """Thinks within `thinking_token_budget`, three tokens a delta, and answers within `max_tokens`."""
    thinks = body["chat_template_kwargs"]["enable_thinking"]
    thought = THOUGHT[: body.get("thinking_token_budget", len(THOUGHT))] if thinks else []
    answer = ANSWER[: max(0, body.get("max_tokens", 10_000) - len(thought))]
    finish = "stop" if len(answer) == len(ANSWER) else "length"
    return await events_to(
        request,
        delta(role="assistant", content=""),
        *[delta(reasoning="".join(thought[i : i + 3])) for i in range(0, len(thought), 3)],
        *[delta(content=token) for token in answer],
        delta(finish),
        usage(len(thought), len(answer)),
        DONE,
    )


def sends(*chunks: dict[str, Any] | bytes) -> Handler:
    async def handler(request: web.Request, _: dict[str, Any]) -> Stream:
        return await events_to(request, *chunks)

    return handler


def answers(status: int, text: str = "{}", content_type: str = "application/json") -> Handler:
    async def handler(_: web.Request, __: dict[str, Any]) -> Stream:
        return web.Response(status=status, text=text, content_type=content_type)

    return handler


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[Engine]:
    """The engine on a loopback port of its own; tells it its url."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", engine.chat)
    app.router.add_get("/v1/models", engine.models)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    engine.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield engine
    finally:
        await runner.cleanup()
