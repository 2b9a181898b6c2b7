"""Whoever watches without haste does so in a thread, a moment later, and holds up no request."""

import threading
import time
from collections import deque
from collections.abc import Callable

from router.records import Record

GATHER_SECONDS = 0.02
"""How long the first record of a batch waits for others: waking a thread costs more than most records."""

MOST = 10_000
"""Records that may wait; more are lost."""


class Background:
    """An observer that tells another one from a thread.

    Args:
        observer: told of each record, and of its time in seconds since 1970.
        heeds: which records it is told of.
    """

    def __init__(
        self, observer: Callable[[Record, float], None], heeds: Callable[[Record], bool] = lambda record: True
    ) -> None:
        self._observer = observer
        self._heeds = heeds
        self._records: deque[tuple[Record, float]] = deque(maxlen=MOST)
        self._some = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self._thread.start()

    def __call__(self, record: Record) -> None:
        if not self._heeds(record):
            return
        self._records.append((record, time.time()))
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Tell what waits."""
        self._closing.set()
        self._some.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._closing.wait(GATHER_SECONDS)
            self._some.clear()
            for _ in range(len(self._records)):
                self._observer(*self._records.popleft())
