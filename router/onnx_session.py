"""How ONNX Runtime runs in this process: on one thread, and no run without an end."""

import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime

CPU = "CPUExecutionProvider"

TICK_SECONDS = 0.1
"""Pause between two looks at the run under way."""


def open_session(graph: bytes, providers: Sequence[str] = (CPU,)) -> onnxruntime.InferenceSession:
    """A session of a serialised graph on one thread that does not spin; raises whatever ONNX Runtime raises.

    Small graphs gain nothing from more threads, and the cores have other work.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The bytes could as well be a graph in ONNX Runtime's own format, in which nobody looked for other files.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    session = onnxruntime.InferenceSession(graph, options, providers=list(providers))
    if session.get_providers() == [CPU]:
        # It would keep the bytes beside the weights, for another provider to fall back from; the CPU has none.
        session._model_bytes = None
    return session


class OverrunError(Exception):
    """A run took too long and was ended."""


class BoundedSession:
    """A session whose runs end: a thread looks at them, and ends one between two operators once it takes too long.

    One run at a time. The thread counts its looks, not the time: a machine that was asleep has not computed.

    Args:
        seconds: longest run.

    Attributes:
        seconds: as the argument; may be changed between runs.
    """

    def __init__(self, session: onnxruntime.InferenceSession, seconds: float) -> None:
        self.seconds = seconds
        self._session = session
        self._options = onnxruntime.RunOptions()
        self._started = self._ended = 0
        threading.Thread(target=_watch, args=(weakref.ref(self),), name="onnx watch", daemon=True).start()

    def run(self, names: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        """Outputs by name, in order. Raises OverrunError, and whatever ONNX Runtime raises."""
        # Numbers instead of a lock: this is on the path of every decision.
        self._started += 1
        # Each run has its own: the thread may end a run that has just ended by itself, and must not end the next one.
        options = self._options = onnxruntime.RunOptions()
        try:
            return self._session.run(names, inputs, options)  # type: ignore[no-any-return]
        except Exception as error:
            if not options.terminate:
                raise
            raise OverrunError(f"a run took longer than {self.seconds:g} s") from error
        finally:
            self._ended = self._started

    def look(self, seen: tuple[int, int]) -> tuple[int, int]:
        """Compare with the last look, a run's number and how many looks it has lasted; ends a run that lasts too long.

        Returns:
            The same for the next look.
        """
        number, looks = seen
        options = self._options  # first: those of a run that begins meanwhile stay as they are
        if self._started == self._ended or self._started != number:
            return self._started, 0
        if (looks + 1) * TICK_SECONDS >= self.seconds:
            options.terminate = True
        return number, looks + 1


def _watch(reference: "weakref.ref[BoundedSession]") -> None:
    """Look at the runs of a session until nobody else holds it."""
    seen = (0, 0)
    while (session := reference()) is not None:
        seen = session.look(seen)
        del session
        time.sleep(TICK_SECONDS)
