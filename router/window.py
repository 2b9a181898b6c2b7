"""Streams in fewer messages: deltas that come within a window leave together."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby
from types import TracebackType

from router.domain import ContentDelta, Decision, Logprobs, ReasoningDelta, RefusalDelta, ServedEvent

Event = Decision | ServedEvent
Send = Callable[[Event], Awaitable[None]]

Delta = ReasoningDelta | ContentDelta | RefusalDelta | Logprobs
DELTAS = (ReasoningDelta, ContentDelta, RefusalDelta, Logprobs)


class Window:
    """Sends the events of a stream, deltas once a window.

    The first delta leaves at once and opens a window. Those that come within it leave at its end, joined by kind, and
    open the next one. All other events leave at once, behind the deltas before them.

    Use it as a context around the stream: what is held back leaves before an error does.

    Args:
        seconds: 0 = every event leaves at once.
        send: sends an event. What it raises, the next call here raises.
    """

    def __init__(self, seconds: float, send: Send) -> None:
        self._seconds = seconds
        self._send = send
        self._held: list[Delta] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Window":
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if error is None or isinstance(error, Exception):
            await self._sent()
            await self._send_held()
        elif self._sending is not None:  # nobody reads any more
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    async def take(self, event: Event) -> None:
        """Send an event now or at the end of the window. It waits for a reader who is slow."""
        if not self._seconds:
            await self._send(event)
            return
        await self._sent()
        if isinstance(event, DELTAS):
            if self._timer is not None:
                self._held.append(event)
                return
            self._open()
        await self._send_held()
        await self._send(event)

    def _open(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._over)

    def _over(self) -> None:
        self._timer = None
        if self._held:
            self._open()
            self._sending = asyncio.create_task(self._send_held())

    async def _sent(self) -> None:
        """Wait until what has left at a window's end is sent."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            await sending

    async def _send_held(self) -> None:
        held, self._held = self._held, []
        for event in _joined(held):
            await self._send(event)


def _joined(held: Sequence[Delta]) -> Iterator[Delta]:
    """Neighbouring texts of one kind as one, and behind them the log-probabilities of their tokens."""
    texts = [delta for delta in held if not isinstance(delta, Logprobs)]
    for kind, run in groupby(texts, type):
        yield kind("".join(delta.text for delta in run))
    if tokens := tuple(token for delta in held if isinstance(delta, Logprobs) for token in delta.tokens):
        yield Logprobs(tokens)
