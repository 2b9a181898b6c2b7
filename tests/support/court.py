"""A judge: a server with an OpenAI-compatible API that says whether answers are right."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Court:
    """An OpenAI-compatible server that judges: yes where the answer holds `right`, else what `verdicts` say."""

    right: str = ""
    says: str | Callable[[str], str] | None = None
    status: int = 200
    seconds: float = 0.0
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)

    async def chat(self, request: web.Request) -> web.Response:
        self.keys.add(request.headers.get("Authorization"))
        body = await request.json()
        self.asked.append(body)
        await asyncio.sleep(self.seconds)
        if self.status != 200:
            return web.Response(status=self.status)
        prompt = body["messages"][0]["content"]
        said = self.says(prompt) if callable(self.says) else self.says
        verdict = said if said is not None else "yes" if self.right in prompt else "no"
        reply = {"choices": [{"message": {"role": "assistant", "content": verdict}}]}
        return web.json_response(reply | {"usage": {"completion_tokens": 3}})

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "wise"}]})


@asynccontextmanager
async def court(**how: Any) -> AsyncIterator[Court]:
    """A running judge."""
    judge, app = Court(**how), web.Application()
    app.add_routes([web.post("/v1/chat/completions", judge.chat), web.get("/v1/models", judge.models)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    judge.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield judge
    finally:
        await runner.cleanup()
