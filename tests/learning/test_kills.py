"""A service that learns is killed again and again: nothing is learned twice, and nothing that was written is lost."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from router.client import Client, Decision
from router.learning import store
from tests.serving.test_serve import connected, running

LIVES = ((3, 0.0), (5, 0.05), (4, 0.2))
"""Questions that each service answers, and seconds from the first event of one more until it is killed."""

LATE = 2
"""Pieces of evidence that may not be written yet when the next question is asked: so none is dropped as too many."""

WAIT_SECONDS = 60.0


def known(folder: Path) -> list[str]:
    """The decisions of which there is evidence, in the order in which it was written."""
    return [one.decision_id for _, one in store.read(folder)] if (folder / store.FILE).exists() else []


def begun(client: Client, number: int) -> tuple[str, Iterator[object]]:
    """The decision about a question, and the rest of its stream."""
    events = client.generate(f"{number} + 75 - 3 =", max_answer_tokens=24)
    first = next(events)
    assert isinstance(first, Decision)
    return first.decision_id, events


def until_known(folder: Path, pieces: int) -> None:
    """Wait for so many pieces of evidence."""
    deadline = time.monotonic() + WAIT_SECONDS
    while len(known(folder)) < pieces:
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def test_nothing_is_learned_twice_or_lost(tmp_path: Path) -> None:
    folder, before, numbers = tmp_path / "learning", list[str](), count()
    settings = {"learn": "observe", "learn_share": "1", "learn_ladder": "0,16", "learn_folder": str(folder)}
    for questions, moment in LIVES:
        decisions = []
        with running(tmp_path, **settings) as server, connected(server) as client:
            for _ in range(questions):
                decision, rest = begun(client, next(numbers))
                decisions.append(decision)
                assert list(rest)
                until_known(folder, len(before) + len(decisions) - LATE)
            decisions.append(begun(client, next(numbers))[0])
            time.sleep(moment)
            server.process.kill()
            server.process.wait()
        now = known(folder)
        own = now[len(before) :]
        assert now[: len(before)] == before, "what was written stays"
        assert own == decisions[: len(own)], "each once, and none of the earlier ones is missing"
        assert len(own) >= questions - LATE
        before = now
