"""The classifier: whatever it does, everyone is answered, at the top rung where nothing is known."""

import asyncio
import gc
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router._gen import budget_router_pb2 as pb
from router.errors import ClassifierError
from router.scoring.onnx import OnnxClassifier
from router.serving.parts import Parts
from tests.faults.conftest import Cell, scene
from tests.rpc.conftest import decide

DEGRADED = 'budget_router_degraded_total{dependency="classifier"}'
Score = Callable[..., Any]


def down(score: Score) -> Score:
    async def fails(self: OnnxClassifier, prompts: Any, owner: bytes = b"") -> Any:
        raise ClassifierError("told to fail")

    return fails


def hang(score: Score) -> Score:
    async def hangs(self: OnnxClassifier, prompts: Any, owner: bytes = b"") -> Any:
        await asyncio.Event().wait()

    return hangs


def slow(score: Score) -> Score:
    async def waits(self: OnnxClassifier, prompts: Any, owner: bytes = b"") -> Any:
        await asyncio.sleep(0.05)
        return await score(self, prompts, owner)

    return waits


def flapping(score: Score) -> Score:
    numbers = count()

    async def flaps(self: OnnxClassifier, prompts: Any, owner: bytes = b"") -> Any:
        if next(numbers) % 2:
            raise ClassifierError("told to fail")
        return await score(self, prompts, owner)

    return flaps


def impatient(parts: Parts) -> Parts:
    """The classifier has less time than usual."""
    models = [replace(m, served=replace(m.served, scorer=replace(m.served.scorer, seconds=0.2))) for m in parts.models]
    return replace(parts, models=models)


@pytest.mark.parametrize(
    ("fault", "counter"),
    [
        (down, DEGRADED),
        (hang, DEGRADED),
        (slow, "budget_router_decide_seconds_sum"),
        (flapping, DEGRADED),
    ],
)
async def test_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any, counter: str) -> None:
    monkeypatch.setattr(OnnxClassifier, "at_once", lambda self, prompt: None)  # all prompts go the way of long ones
    async with scene(tmp_path, impatient) as running:
        with monkeypatch.context() as patched:
            patched.setattr(OnnxClassifier, "score", fault(OnnxClassifier.score))
            cell = await running.under(Cell("classifier", fault.__name__), counter)
        await running.recovered(cell)


async def test_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that are none come out of the graph."""
    async with scene(tmp_path) as running:
        with monkeypatch.context() as patched:
            for classifier in _classifiers():
                patched.setattr(classifier, "_session", _Nonsense())
            cell = await running.under(Cell("classifier", "garbage"), DEGRADED)
        await running.recovered(cell)


@pytest.mark.parametrize("words", [300, pytest.param(750, marks=pytest.mark.slow)])
async def test_full(tmp_path: Path, words: int) -> None:
    """As many prompts at once as a call may hold, while others ask."""
    async with scene(tmp_path) as running:
        cell = Cell("classifier", "full")
        batch = pb.DecideBatchRequest(requests=[decide(f"{i} " + "word " * words) for i in range(1_024)])
        flood = running.routing.DecideBatch(batch)
        await running.under(cell, "budget_router_decide_seconds_sum")
        assert len((await flood).decisions) == 1_024
        await running.recovered(cell)


class _Nonsense:
    def run(self, names: Any, inputs: Any) -> list[Any]:
        rows = len(inputs["features"])
        return [np.full((rows, 6), np.nan), np.zeros((rows, 6)), np.zeros((rows, 6, 3))]


def _classifiers() -> list[OnnxClassifier]:
    """All that live in this process; the service under test has one of them."""
    return [one for one in gc.get_objects() if isinstance(one, OnnxClassifier)]
