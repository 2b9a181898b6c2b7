"""The operator's verifier over HTTP, and every way in which it may not answer."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from router.domain import Prompt
from router.errors import VerifierError
from router.outcomes.verifiers import HttpVerifier

Answer = dict[str, Any] | str | int


@asynccontextmanager
async def verifier_that(answers: Answer) -> AsyncIterator[tuple[HttpVerifier, list[Any]]]:
    """A verifier on loopback that answers with JSON, a text or a status, or hangs."""
    asked: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(await request.json())
        if answers == "hangs":
            await asyncio.sleep(3_600)
        if isinstance(answers, int):
            return web.Response(status=answers)
        return web.json_response(answers) if isinstance(answers, dict) else web.Response(text=answers)

    app = web.Application()
    app.router.add_post("/verify", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    verifier = HttpVerifier("http://{}:{}/verify".format(*runner.addresses[0][:2]), 0.3)
    try:
        yield verifier, asked
    finally:
        await verifier.close()
        await runner.cleanup()


async def test_it_is_asked_and_believed() -> None:
    async with verifier_that({"correct": [1, 0.5]}) as (verifier, asked):
        assert await verifier.correct(Prompt.of("2 + 2 ="), ["4", "5"]) == [1.0, 0.5]
    assert asked == [{"messages": [{"role": "user", "content": "2 + 2 ="}], "answers": ["4", "5"]}]


@pytest.mark.parametrize(
    "answers",
    [500, 404, "no JSON", "hangs", {}, {"correct": 1}, {"correct": [1]}, {"correct": [1, 2]}, {"correct": [1, "x"]},
     {"correct": [1, None]}, {"correct": [-1, 0]}, '{"correct": [1, 1%s]}' % ("0" * 400), "[" * 10_000],
)  # fmt: skip
async def test_anything_else_is_a_typed_error(answers: Answer) -> None:
    async with verifier_that(answers) as (verifier, _):
        with pytest.raises(VerifierError):
            await verifier.correct(Prompt.of("2 + 2 ="), ["4", "5"])


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(**handlers: Handler) -> AsyncIterator[HttpVerifier]:
    """A verifier at /verify on loopback; further handlers at their names."""
    app = web.Application()
    app.router.add_routes([web.post(f"/{name}", handler) for name, handler in handlers.items()])
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    verifier = HttpVerifier("http://{}:{}/verify".format(*runner.addresses[0][:2]), 30)
    try:
        yield verifier
    finally:
        await verifier.close()
        await runner.cleanup()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_prompts_are_not_posted_to_where_a_redirect_leads(status: int) -> None:
    posted: list[str] = []

    async def verify(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/other"})

    async def other(request: web.Request) -> web.Response:
        posted.append(await request.text())
        return web.json_response({"correct": [1, 1]})

    async with served(verify=verify, other=other) as verifier:
        with pytest.raises(VerifierError, match=f"HTTP {status}"):
            await verifier.correct(Prompt.of("2 + 2 ="), ["4", "5"])
    assert not posted


async def test_a_compressed_answer_is_not_unpacked() -> None:
    asked: list[str] = []

    async def verify(request: web.Request) -> web.Response:
        asked.append(request.headers["Accept-Encoding"])
        packed = gzip.compress(json.dumps({"correct": [1, 1], "more": " " * (16 << 20)}).encode())
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"}, content_type="application/json")

    async with served(verify=verify) as verifier:
        with pytest.raises(VerifierError):
            await verifier.correct(Prompt.of("2 + 2 ="), ["4", "5"])
    assert asked == ["identity"]


async def test_an_answer_without_an_end_is_left_early() -> None:
    sent = 0

    async def verify(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while sent < 256 << 20:
            await response.write(b" " * (1 << 16))
            sent += 1 << 16
        return response

    async with served(verify=verify) as verifier:
        with pytest.raises(VerifierError, match="longer than"):
            await verifier.correct(Prompt.of("2 + 2 ="), ["4", "5"])
    assert sent < 64 << 20


async def test_one_that_is_not_there_is_a_typed_error() -> None:
    verifier = HttpVerifier("http://127.0.0.1:9/verify", 0.3)
    with pytest.raises(VerifierError):
        await verifier.correct(Prompt.of("2 + 2 ="), ["4"])
    await verifier.close()
