"""No answer of an engine, within the bounds, holds up the others: the longest turn of a loop that reads it."""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from router.backends.dialects import DIALECTS
from router.backends.limits import ReadLimits
from router.backends.sse import LONGEST_LINE, Bounds, EventReader
from router.backends.stream_state import StreamState
from router.backends.text import LONGEST_LAX, dumps, loads
from router.backends.token_ids import find_ids
from router.domain import GenerationRequest, Prompt, ReasoningBudget, Sampling
from router.errors import BackendError
from tests.support.turns import MeasuredLoop, steps_of

PAUSE = 50_000
"""Longest turn in steps, of which one is about a microsecond."""

REQUEST = GenerationRequest(Prompt.of("x"), ReasoningBudget("all", None), sampling=Sampling())
BODY = 1 << 20
"""Bytes of a request that an engine may repeat."""


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    """The collector would walk through all that the tests have loaded."""
    gc.disable()
    yield
    gc.enable()


def event(choice: str, more: str = "") -> bytes:
    return f'data: {{"choices":[{choice}]{more}}}\n\n'.encode()


def filled(before: str, part: str, after: str, size: int = LONGEST_LINE - 200) -> str:
    """A text of parts, as long as an event may be."""
    return before + ",".join([part] * ((size - len(before) - len(after)) // (len(part) + 1))) + after


IDS = filled('{"delta":{"reasoning":"hm"},"token_ids":[', "7", "]}")
WITHIN = '{"delta":{"content":[{"type":"thinking","thinking":['
HALF = '{"delta":{"content":"\\ud83d"},"x":['

WORST: dict[str, bytes] = {
    "ids": event(IDS),
    "ids that wait": event('{"delta":{"content":"It may"}}') + event(filled('{"token_ids":[', "7", "]}")),
    "half a character, and much beside it": event(filled(HALF, '"\\ud83d"', "]}")),
    "halves of characters": event('{"delta":{"content":"' + "\\ud83d" * (LONGEST_LINE // 6 - 40) + '"}}'),
    "half a character, at the limit": event(filled(HALF, '{"a":1}', "]}", LONGEST_LAX - 200)) * 16,
    "tool calls": event(filled('{"delta":{"tool_calls":[', '{"function":{"arguments":"x"}}', "]}}")),
    "tool calls of nothing": event(filled('{"delta":{"tool_calls":[', "{}", "]}}")),
    "parts": event(filled('{"delta":{"content":[', '{"text":"x"}', "]}}")),
    "parts within parts": event(filled(WITHIN, '{"text":"x"}', "]}]}}")),
    "choices": event(filled("", '{"delta":{"content":"x"}}', "")),
    "events of one word": event('{"delta":{"content":"x"}}') * 8_000,
    "the prompt": event(
        '{"delta":{"content":"x"}}', ',"prompt_token_ids":[' + ",".join(["150000"] * (BODY - 10_000)) + "]"
    ),
}


@pytest.mark.parametrize("sent", WORST.values(), ids=WORST)
def test_no_event_takes_long(sent: bytes) -> None:
    pieces = iter([sent[at : at + (1 << 17)] for at in range(0, len(sent), 1 << 17)])

    async def read() -> bytes:
        await asyncio.sleep(0)
        return next(pieces, b"")

    async def work() -> None:
        state = StreamState(DIALECTS["vllm"], limits=ReadLimits.of(REQUEST, thinks=True))
        events = EventReader(read, Bounds.of(None, BODY), "/v1/chat/completions")
        try:
            while (chunks := await events.next()) and not state.full:
                state.read(chunks, None)
        except BackendError:  # it may be refused, as long as that is quick
            return

    assert longest(work) < PAUSE


def longest(work: Callable[[], Awaitable[None]]) -> float:
    """Steps of the longest turn."""
    loop = MeasuredLoop()

    async def measured() -> float:
        loop.begin()
        await work()
        await asyncio.sleep(0)
        return loop.longest()

    try:
        return loop.run_until_complete(measured())
    finally:
        loop.close()


async def test_the_prompt_that_an_engine_repeats_is_not_parsed() -> None:
    def chunk(ids: str) -> bytes:
        return event('{"delta":{"content":"x"}}', f',"prompt_token_ids":[{ids}],"usage":{{"prompt_tokens":9}}')

    async def parsed(sent: bytes) -> Any:
        pieces = iter([sent])

        async def read() -> bytes:
            return next(pieces, b"")

        [found] = await EventReader(read, Bounds.of(64, BODY), "/").next()
        return found

    found = await parsed(chunk(",".join(["150000"] * 100_000)))
    assert (found["prompt_token_ids"], found["usage"]) == ([], {"prompt_tokens": 9})
    assert found["choices"][0]["delta"]["content"] == "x"
    quoted = json.dumps({"text": '"prompt_token_ids":[' + "7," * 50_000 + "]"})
    assert await parsed(f"data: {quoted}\n\n".encode()) == json.loads(quoted)


def test_ids_of_a_long_prompt_are_written_quickly() -> None:
    body = {"prompt": [150_000] * 300_000}
    assert steps_of(lambda: dumps(body)) < PAUSE / 2
    assert json.loads(dumps(body)) == body


@pytest.mark.parametrize("strange", ["\ud83d", 1 << 70, [[]]])
def test_what_a_callers_schema_may_hold_is_written(strange: object) -> None:
    for _ in range(300 if isinstance(strange, list) else 0):
        strange = [strange]
    assert json.loads(dumps({"parameters": strange})) == {"parameters": strange}


def test_half_a_character_is_read_in_short_texts_alone() -> None:
    assert loads(b'{"a": "\\ud83d"}') == {"a": "\ud83d"}
    with pytest.raises(ValueError, match="surrogate"):
        loads(b'{"a": "\\ud83d' + b"x" * LONGEST_LAX + b'"}')
    assert loads(b'{"a": "\xff' + b"x" * LONGEST_LAX + b'"}')["a"].startswith("\ufffdx")


def test_a_marker_is_found_among_many_ids() -> None:
    ids = [1, 2, 1, 1, 3, 2, 1, 3]
    assert [find_ids(ids, part) for part in ([1, 3], [3], [9], [2, 1, 3], [3, 1])] == [3, 4, None, 5, None]
    assert (find_ids(ids, [1, 3], 4), find_ids(ids, [1, 2], 1), find_ids([], [1])) == (6, None, None)
    assert steps_of(lambda: find_ids([7] * 300_000, [8])) < PAUSE / 2
