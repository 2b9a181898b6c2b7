"""Standard output that neither fails nor blocks whoever logs; a full disk or a reader that hangs costs lines."""

import queue
import threading
from typing import TextIO


class LogWriter:
    """A file for lines, written by a thread; `most` of them may wait, more are lost.

    Attributes:
        lost: lines that could not be written.
    """

    def __init__(self, out: TextIO, most: int = 10_000) -> None:
        self._out = out
        self._lines: queue.Queue[str | None] = queue.Queue(most)
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Write soon; never waits."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self.lost += 1
        return len(text)

    def flush(self) -> None:
        """Nothing to do: the thread does it."""

    def close(self, seconds: float = 1.0) -> None:
        """Write what waits; a reader that hangs is given up on after so many seconds."""
        try:
            self._lines.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _run(self) -> None:
        text: str | None = ""
        while text is not None:
            text = self._lines.get()
            try:
                self._out.write(text or "")
                if self._lines.empty():
                    self._out.flush()
            except (OSError, ValueError):  # ValueError: closed
                self.lost += 1
