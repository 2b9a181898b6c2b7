"""What an engine has said reaches the caller while the engine waits: no event is held back for the next one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from router.domain import Completion, ContentDelta, ReasoningDelta
from router.errors import BackendError
from tests.backends.test_request_fields import engine
from tests.http.conftest import CHAT, QUESTION, RESPONSES, fronting
from tests.support.fakes import FakeBackend, completion_of, router_of
from tests.support.request_table import WAYS
from tests.support.simulators import ANSWER, THOUGHT


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """The events of a stream, as they come."""
    async for line in response.content:
        if line.startswith(b"data: {"):
            yield orjson.loads(line[6:])


async def test_every_event_of_an_engine_reaches_the_caller_before_the_next_one_is_there() -> None:
    thought = [f"s{number} " for number in range(THOUGHT)]
    async with (
        engine(*WAYS["vLLM native"]) as (simulator, backend),
        fronting(router_of(backend=backend)) as front,
        asyncio.timeout(30),
    ):
        for path, question in ((CHAT, {"messages": QUESTION}), (RESPONSES, {"input": "2 + 2 ="})):
            simulator.gate = asyncio.Semaphore(0)
            asked = {**question, "stream": True, "budget_router": {"rung": "64"}}
            opened = asyncio.create_task(front.session.post(front.url + path, json=asked))
            simulator.gate.release()
            async with await opened as response:
                arriving = events(response)
                for number, text in enumerate((*thought, "", *ANSWER)):
                    if number:
                        simulator.gate.release()
                    while text and _text(await anext(arriving)) != text:
                        pass  # the engine says no more than this until the next turn of the loop
                simulator.gate.release()
                assert [event async for event in arriving], "then it ends"


@pytest.mark.parametrize(
    ("path", "question"), [(CHAT, {"messages": QUESTION}), (RESPONSES, {"input": "2 + 2 ="})], ids=["chat", "responses"]
)
@pytest.mark.parametrize("end", [completion_of(), BackendError("backend: gone")], ids=["whole", "broken"])
async def test_deltas_within_a_window_leave_together(
    path: str, question: dict[str, Any], end: Completion | BackendError
) -> None:
    backend = FakeBackend([*map(ReasoningDelta, ("so ", "it ", "is ")), *map(ContentDelta, "42"), end])
    async with (
        fronting(router_of(backend=backend), window_seconds=600.0) as front,
        front.session.post(front.url + path, json=question | {"stream": True}) as response,
    ):
        arrived = [event async for event in events(response)]
    assert [text for text in map(_text, arrived) if text] == ["so ", "it is ", "42"]
    assert ("error" in arrived[-1] or arrived[-1].get("type") == "error") is isinstance(end, BackendError)


def _text(event: dict[str, Any]) -> str:
    """What an event adds to the answer or to the thought."""
    if "choices" not in event:
        return str(event.get("delta", ""))
    delta = event["choices"][0]["delta"] if event["choices"] else {}
    return str(delta.get("reasoning_content") or delta.get("content") or "")
