"""The silence of an engine within a stream, by one timer a stream: to set one for every event costs more than to read
the event."""

import asyncio

from aiohttp import StreamReader


class Silence:
    """Lets the reading of a stream fail with TimeoutError where the engine is silent for too long.

    The timer looks once in a while whether the time is over. Meanwhile `until` may be moved at no cost, to `idle`
    seconds from now or later.

    Args:
        content: what is read.
        until: time of the event loop by which something must come.
        idle: seconds between two looks at most.
        end: time by which all of the stream must have come.

    Attributes:
        until: infinite while nothing is read, since the caller takes its time.
    """

    def __init__(self, content: StreamReader, until: float, idle: float, end: float) -> None:
        self.until = until
        self._content = content
        self._idle = idle
        self._end = end
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> "Silence":
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _wait(self) -> None:
        self._timer = self._loop.call_at(min(self.until, self._end, self._loop.time() + self._idle), self._look)

    def _look(self) -> None:
        if min(self.until, self._end) <= self._loop.time():
            self._content.set_exception(TimeoutError())
        else:
            self._wait()
