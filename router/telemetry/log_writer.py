"""A logger that neither fails nor blocks its callers; a full disk or a reader that hangs costs lines instead."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from select import PIPE_BUF
from typing import Any, TextIO

import orjson

Fields = Mapping[str, Any]
"""One log line, before it is rendered."""

DeferredLog = Callable[[], Fields | None]
"""Makes a line that takes a while to build; None where it has logged it by itself."""

Defer = Callable[[DeferredLog], None]
"""Runs a DeferredLog and writes its line a moment later, in another thread."""

GATHER_SECONDS = 0.1
"""Seconds that the first line of a batch waits for others: waking a thread costs more than writing a line."""


class LogWriter:
    """Writes JSON lines; a thread renders and writes them.

    Args:
        most: lines that may wait; more are lost.
        gather_seconds: seconds that the first line of a batch waits for others.

    Attributes:
        lost: lines that could not be written.
    """

    def __init__(self, out: TextIO, most: int = 10_000, gather_seconds: float = GATHER_SECONDS) -> None:
        self._out = out
        self._most = most
        self._gather_seconds = gather_seconds
        self._waiting: deque[Fields | DeferredLog] = deque()
        self._some = threading.Event()
        self._closing = threading.Event()
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def msg(self, event: Fields) -> None:
        """Write a line a moment later; never waits."""
        self._put(event)

    debug = info = warning = error = critical = msg

    def defer(self, log: DeferredLog) -> None:
        """Write the line that `log` makes in the writer's thread a moment later; never waits."""
        self._put(log)

    def _put(self, waiting: Fields | DeferredLog) -> None:
        # deque.append is atomic, so callers in any thread need no lock.
        if len(self._waiting) >= self._most:
            self.lost += 1
            return
        self._waiting.append(waiting)
        if not self._some.is_set():  # setting an Event takes a lock, also when it is set already
            self._some.set()

    def close(self, seconds: float = 1.0) -> None:
        """Write all waiting lines, for at most so many seconds: the reader may hang."""
        self._closing.set()
        self._some.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        closing = False
        while not closing:
            self._some.wait()
            closing = self._closing.wait(self._gather_seconds)
            self._some.clear()  # before the lines are taken: a line that arrives later sets it again
            while self._waiting:
                try:
                    self._write(list(self._lines()))
                except Exception:  # whatever it is, it must not cost the lines after it
                    self.lost += 1

    def _lines(self) -> Iterator[str]:
        """Render all waiting lines."""
        for _ in range(len(self._waiting)):
            waiting = self._waiting.popleft()
            try:
                fields = waiting() if callable(waiting) else waiting
                if fields is not None:
                    yield _line(fields)
            except Exception as error:  # a line that cannot be built costs no other
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
    """Join lines into chunks that a pipe takes whole: several workers may write into one, and must not mix lines."""
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


def _line(event: Fields) -> str:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair, which orjson refuses
        return json.dumps(event, default=_plain) + "\n"


def _plain(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else repr(value)
