"""Independent answers from an engine over HTTP: a real server in vLLM's shape, and its faults."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from aiohttp import web

from router.domain import Sampling
from router.errors import BackendUnavailable
from tests.conftest import free_port
from tests.engine import ANSWER, MODEL, Engine, Handler, Stream, answers, serving, well_behaved
from training.collect import samples
from training.collect.questions import Question
from training.collect.recipes import parse
from training.collect.run import collect, local
from training.collect.units import Engine as Source
from training.collect.units import Recipe
from training.dataset import read
from training.overview import overview

QUESTIONS = [Question(f"{i} + {4 - i} =", "4", "sums", f"g{i}", "numeric", {}) for i in range(4)]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine on a thread of its own; collection has an event loop of its own too."""
    started, stop = threading.Event(), asyncio.Event()
    engine, loop = Engine(), asyncio.new_event_loop()

    async def run() -> None:
        async with serving(engine):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert started.wait(10)
    yield engine
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries at once."""
    monkeypatch.setattr(samples, "RETRY_PAUSES", (0.01, 0.01))


def recipe_of(url: str, **sampling: Any) -> Recipe:
    repeats = 2 if sampling.get("temperature") else 1
    return Recipe(Source(url, MODEL, 5), MODEL, parse("0,16,unlimited"), repeats, Sampling(**sampling), 3)


def test_budgets_answers_and_counts_reach_the_file(engine: Engine, tmp_path: Path) -> None:
    collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local)
    outcomes = read(tmp_path / "o.parquet")
    assert outcomes.correct.tolist() == [[1, 1, 1]] * 4
    assert outcomes.thinking_tokens.tolist() == [[0, 16, 40]] * 4
    rows = pl.read_parquet(tmp_path / "o.parquet")
    assert set(rows["total_tokens"] - rows["thinking_tokens"]) == {len(ANSWER)}
    assert rows.filter(pl.col("rung") == "16")["finish"].to_list() == ["forced"] * 4
    assert sorted(body.get("thinking_token_budget", -1) for body in engine.bodies) == [-1] * 8 + [16] * 4


def test_repeats_have_seeds_of_their_own_that_a_resumed_run_repeats(engine: Engine, tmp_path: Path) -> None:
    recipe = recipe_of(engine.url, temperature=0.7, seed=5)
    collect(QUESTIONS, recipe, tmp_path / "o.parquet", local)
    seeds = sorted(body["seed"] for body in engine.bodies)
    assert len(set(seeds)) == len(seeds) == 4 * 3 * 2
    engine.bodies.clear()
    collect(QUESTIONS, recipe, tmp_path / "again.parquet", local)
    assert sorted(body["seed"] for body in engine.bodies) == seeds


def failing_for(text: str, otherwise: Handler, status: int, times: int = 10**9) -> Handler:
    """Fails the first `times` requests whose prompt is `text`."""
    left = [times]

    async def handler(request: web.Request, body: dict[str, Any]) -> Stream:
        if body["messages"][-1]["content"] == text and left[0] > 0:
            left[0] -= 1
            return await answers(status)(request, body)
        return await otherwise(request, body)

    return handler


def test_a_fault_that_passes_is_tried_again(engine: Engine, tmp_path: Path) -> None:
    engine.handler = failing_for(QUESTIONS[1].prompt, well_behaved, 503, times=2)
    collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local)
    assert len(read(tmp_path / "o.parquet")) == 4


@pytest.mark.parametrize("status", [400, 500])
def test_a_prompt_that_always_fails_is_the_engines_error_and_never_wrong(
    engine: Engine, tmp_path: Path, status: int
) -> None:
    engine.handler = failing_for(QUESTIONS[1].prompt, well_behaved, status)
    tally = collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local)
    assert [(row["right"], row["wrong"], row["error"]) for row in tally] == [(3, 0, 1)] * 3
    outcomes, seen = read(tmp_path / "o.parquet"), overview(tmp_path / "o.parquet")
    assert sorted(outcomes.prompts) == sorted(q.prompt for q in QUESTIONS if q is not QUESTIONS[1])
    assert (seen.errors, seen.lost, seen.prompts) == (3, 1, 3)


def test_an_engine_that_is_gone_stops_the_run_and_keeps_what_is_done(engine: Engine, tmp_path: Path) -> None:
    async def goes_away(request: web.Request, body: dict[str, Any]) -> Stream:
        if len(engine.bodies) < 9:
            return await well_behaved(request, body)
        engine.served = []
        return await answers(500)(request, body)

    engine.handler = goes_away
    with pytest.raises(BackendUnavailable, match="run again to go on"):
        collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local)
    asked = len(engine.bodies)
    engine.served, engine.handler = [MODEL], well_behaved
    collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local)
    assert len(engine.bodies) - asked < 12
    assert len(read(tmp_path / "o.parquet")) == 4


def test_no_engine_at_all_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="does not answer"):
        collect(QUESTIONS, recipe_of(f"http://127.0.0.1:{free_port()}"), tmp_path / "o.parquet", local)
