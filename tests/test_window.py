"""Deltas that come within a window leave together. The tests say what time it is."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from router.domain import (
    Checkpoint,
    ContentDelta,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)
from router.errors import BackendError
from router.stopping.evidence import Evidence, Probe, following
from router.window import Event, Window
from tests.support.clock import Clock, loop_clock, settled
from tests.support.fakes import completion_of

SECONDS = 10.0
PIECE = ToolCallDelta(0, ToolCall("call-1", "find", "{"))
THOUGHT, MORE, REST = map(ReasoningDelta, ("so", " it", " is"))


class Sent(list[Event]):
    """What was sent; while `open` is not set, the reader is slow."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.fails: Exception | None = None

    async def __call__(self, event: Event) -> None:
        await self.open.wait()
        if self.fails is not None:
            raise self.fails
        self.append(event)

    def new(self) -> list[Event]:
        """What was sent since the last look."""
        found = list(self)
        self.clear()
        return found


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clock]:
    with monkeypatch.context() as patch:
        yield loop_clock(patch)


def checkpoint() -> Checkpoint:
    evidence: Evidence = following(None, "4", Probe("4", 1, whole=True), 8, False, None)
    return Checkpoint("16", "4", 1, evidence, stops=False)


def token(text: str) -> Logprobs:
    return Logprobs((TokenLogprob(text, -0.5),))


async def taken(window: Window, *events: Event) -> None:
    for event in events:
        await window.take(event)


async def test_without_a_window_every_event_leaves_as_it_comes() -> None:
    sent = Sent()
    events: list[Event] = [THOUGHT, MORE, ContentDelta("4"), completion_of()]
    async with Window(0.0, sent) as window:
        for event in events:
            await window.take(event)
            assert sent.new() == [event]


async def test_the_first_delta_leaves_at_once_and_then_one_a_window(clock: Clock) -> None:
    sent = Sent()
    async with Window(SECONDS, sent) as window:
        await taken(window, THOUGHT)
        assert sent.new() == [THOUGHT]
        await taken(window, MORE, REST)
        clock.now += SECONDS - 1
        await settled()
        assert sent.new() == []
        clock.now += 1
        await settled()
        assert sent.new() == [ReasoningDelta(" it is")]
        await taken(window, MORE)
        await settled()
        assert sent.new() == [], "the next window has begun"
        clock.now += SECONDS
        await settled()
        assert sent.new() == [MORE]
        clock.now += SECONDS
        await settled()
        await taken(window, REST)
        assert sent.new() == [REST], "nothing came within the last window"


async def test_kinds_stay_in_order_and_log_probabilities_stay_behind_their_text(clock: Clock) -> None:
    sent = Sent()
    async with Window(SECONDS, sent) as window:
        await taken(window, THOUGHT, MORE, ContentDelta("4"), token("4"), ContentDelta("2"), token("2"))
        await taken(window, RefusalDelta("no"))
    both = Logprobs((TokenLogprob("4", -0.5), TokenLogprob("2", -0.5)))
    assert sent == [THOUGHT, MORE, ContentDelta("42"), RefusalDelta("no"), both]


@pytest.mark.parametrize("urgent", [PIECE, completion_of(), checkpoint()], ids=lambda event: type(event).__name__)
async def test_what_is_no_delta_never_waits(urgent: Event, clock: Clock) -> None:
    sent = Sent()
    async with Window(SECONDS, sent) as window:
        await taken(window, urgent, THOUGHT)
        assert sent.new() == [urgent, THOUGHT]
        await taken(window, MORE, REST, urgent)
        assert sent.new() == [ReasoningDelta(" it is"), urgent]
        await taken(window, MORE)
        assert sent.new() == [], "a delta behind it waits as before"


async def test_what_is_held_back_leaves_before_an_error(clock: Clock) -> None:
    sent = Sent()
    with pytest.raises(BackendError):
        async with Window(SECONDS, sent) as window:
            await taken(window, THOUGHT, MORE, REST)
            raise BackendError("backend: gone")
    assert sent == [THOUGHT, ReasoningDelta(" it is")]


async def test_where_the_caller_has_left_nothing_is_sent_and_no_task_is_left(clock: Clock) -> None:
    sent = Sent()

    async def stream() -> None:
        async with Window(SECONDS, sent) as window:
            await taken(window, THOUGHT, MORE)
            sent.open.clear()
            clock.now += SECONDS
            await asyncio.Event().wait()

    before = asyncio.all_tasks()
    streaming = asyncio.create_task(stream())
    await settled()
    streaming.cancel()
    await settled()
    assert streaming.cancelled() and asyncio.all_tasks() == before
    sent.open.set()
    clock.now += SECONDS
    await settled()
    assert sent == [THOUGHT]


async def test_a_slow_reader_holds_up_the_stream(clock: Clock) -> None:
    sent = Sent()
    async with Window(SECONDS, sent) as window:
        await taken(window, THOUGHT, MORE)
        sent.open.clear()
        clock.now += SECONDS
        await settled()
        next_one = asyncio.create_task(taken(window, REST))
        clock.now += 2 * SECONDS
        await settled()
        assert not next_one.done() and sent.new() == [THOUGHT]
        sent.open.set()
        await next_one
    assert sent == [MORE, REST]


async def test_what_fails_at_the_end_of_a_window_is_raised_by_the_next_event(clock: Clock) -> None:
    sent = Sent()
    with pytest.raises(ConnectionResetError):
        async with Window(SECONDS, sent) as window:
            await taken(window, THOUGHT, MORE)
            sent.fails = ConnectionResetError("the reader has left")
            clock.now += SECONDS
            await settled()
            await taken(window, REST)
    assert sent == [THOUGHT]
