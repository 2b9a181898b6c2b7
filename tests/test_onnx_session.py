"""A run that takes too long is ended, and it alone."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import onnxruntime
import pytest

from router.onnx_session import TICK_SECONDS, BoundedSession, OverrunError, open_session
from tests.conftest import MODELS

SECONDS = 1_000 * TICK_SECONDS
"""So long that the session's own thread ends no run."""


class Session:
    """As ONNX Runtime: a run does `work`, and fails where it was to end before its last operator."""

    def __init__(self) -> None:
        self.work: Callable[[], None] = lambda: None
        self.last_operator = False

    def run(self, names: Sequence[str], inputs: Mapping[str, Any], options: onnxruntime.RunOptions) -> list[Any]:
        if options.terminate:
            raise RuntimeError("Exiting due to terminate flag")
        self.work()
        if options.terminate and not self.last_operator:
            raise RuntimeError("Exiting due to terminate flag")
        return ["done"]


@pytest.fixture
def fake() -> Session:
    return Session()


@pytest.fixture
def session(fake: Session) -> BoundedSession:
    return BoundedSession(cast(onnxruntime.InferenceSession, fake), SECONDS)


def looked_at(session: BoundedSession, seen: tuple[int, int] = (0, 0)) -> None:
    for _ in range(1_001):
        seen = session.look(seen)


def test_a_run_that_takes_too_long_is_ended_and_the_next_one_is_not(session: BoundedSession, fake: Session) -> None:
    fake.work = lambda: looked_at(session)
    with pytest.raises(OverrunError):
        session.run([], {})
    fake.work = lambda: None
    assert session.run([], {}) == ["done"]


def test_a_run_that_ends_by_itself_at_the_last_moment_does_not_end_the_next_one(
    session: BoundedSession, fake: Session
) -> None:
    fake.last_operator, fake.work = True, lambda: looked_at(session)
    assert session.run([], {}) == ["done"]
    fake.work = lambda: None
    assert session.run([], {}) == ["done"]


def test_between_two_runs_nothing_is_ended(session: BoundedSession, fake: Session) -> None:
    session.run([], {})
    looked_at(session, (1, 1_000))
    assert session.run([], {}) == ["done"]


def test_a_session_on_the_cpu_keeps_no_bytes_of_its_graph() -> None:
    graph = (MODELS / "pocket" / "model.onnx").read_bytes()
    before = sys.getrefcount(graph)
    session = open_session(graph)
    assert session.get_inputs() and sys.getrefcount(graph) == before
