"""A logger that neither fails nor blocks whoever logs; a full disk or a reader that hangs costs lines."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from select import PIPE_BUF
from typing import Any, TextIO

import orjson

Event = Mapping[str, Any]
DeferredLog = Callable[[], None]
"""Logs something that takes a while to put into words."""

Defer = Callable[[DeferredLog], None]
"""Runs what it is given a moment later."""

GATHER_SECONDS = 0.1
"""How long the first event of a batch waits for others: waking a thread costs more than a line."""


class LogWriter:
    """Events as JSON lines, rendered and written by a thread; `most` of them may wait, more are lost.

    Attributes:
        lost: lines that could not be written.
    """

    def __init__(self, out: TextIO, most: int = 10_000) -> None:
        self._out = out
        self._most = most
        self._waiting: deque[Event | DeferredLog] = deque()
        self._some = threading.Event()
        self._closing = threading.Event()
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def msg(self, event: Event) -> None:
        """Write an event soon; never waits."""
        self._put(event)

    debug = info = warning = error = critical = msg

    def soon(self, telling: DeferredLog) -> None:
        """Have the writer's thread tell soon; never waits."""
        self._put(telling)

    def _put(self, waiting: Event | DeferredLog) -> None:
        if len(self._waiting) >= self._most:
            self.lost += 1
            return
        self._waiting.append(waiting)
        if not self._some.is_set():
            self._some.set()

    def close(self, seconds: float = 1.0) -> None:
        """Write what waits; a reader that hangs is given up on after so many seconds."""
        self._closing.set()
        self._some.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        closing = False
        while not closing:
            self._some.wait()
            closing = self._closing.wait(GATHER_SECONDS)
            self._some.clear()
            while self._waiting:
                self._write(list(self._lines()))

    def _lines(self) -> Iterator[str]:
        """Of what waits; what is told only now comes to stand behind it."""
        for _ in range(len(self._waiting)):
            waiting = self._waiting.popleft()
            try:
                if callable(waiting):
                    waiting()
                else:
                    yield _line(waiting)
            except Exception as error:  # a line that can not be built costs no other
                self.lost += 1
                lost = {"event": "line lost", "level": "error", "timestamp": datetime.now(UTC)}
                yield _line(lost | {"error": type(error).__name__})

    def _write(self, lines: list[str]) -> None:
        try:
            for some in _together(lines):
                self._out.write(some)
                self._out.flush()
        except (OSError, ValueError):  # ValueError: closed
            self.lost += len(lines)


def _together(lines: Iterable[str]) -> Iterator[str]:
    """As many lines at a time as a pipe takes whole: several workers may write into one."""
    some: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode())
        if some and size + length > PIPE_BUF:
            yield "".join(some)
            some, size = [], 0
        some.append(line)
        size += length
    yield "".join(some)


def _line(event: Event) -> str:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair, which is no Unicode
        return json.dumps(event, default=_plain) + "\n"


def _plain(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else repr(value)
