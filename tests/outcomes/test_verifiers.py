"""The operator's verifier over HTTP, and every way in which it may not answer."""

import asyncio
from collections.abc import AsyncIterator
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
     {"correct": [1, None]}, {"correct": [-1, 0]}],
)  # fmt: skip
async def test_anything_else_is_a_typed_error(answers: Answer) -> None:
    async with verifier_that(answers) as (verifier, _):
        with pytest.raises(VerifierError):
            await verifier.correct(Prompt.of("2 + 2 ="), ["4", "5"])


async def test_one_that_is_not_there_is_a_typed_error() -> None:
    verifier = HttpVerifier("http://127.0.0.1:9/verify", 0.3)
    with pytest.raises(VerifierError):
        await verifier.correct(Prompt.of("2 + 2 ="), ["4"])
    await verifier.close()
