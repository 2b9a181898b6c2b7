"""Nested answers of engines: what is collected is what serving gives, and fewer tokens are drawn for it."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from router.backends.connect import Connection
from router.backends.http import Timeouts
from router.domain import Message, Prompt, Role, Sampling
from router.errors import BackendUnavailable
from tests.support.simulators import ANSWER, END, ENGINES, MODEL, STEP, THOUGHT, Simulator, simulated
from training.cli import cli
from training.collect.questions import Question
from training.collect.recipes import parse_ladder
from training.collect.run import Collected, collect, local, settings, units
from training.collect.units import Recipe
from training.data.dataset import prompts_of
from training.data.faults import faults
from training.data.schema import DatasetError

QUESTIONS = [Question(f"{i} + {4 - i} =", "4", "sums", f"g{i}", "numeric", {}) for i in range(3)]
KINDS = tuple(ENGINES)
LADDER = "0,8,16,64,256"
ANSWERED = len(ANSWER) + 1
"""Tokens of an answer, with the one that ends it."""


@contextmanager
def running(kind: str, **faults: Any) -> Iterator[Simulator]:
    """An engine on a thread of its own; collection has an event loop of its own too."""
    started, stop, found = threading.Event(), asyncio.Event(), []
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with simulated(kind, **faults) as simulator:
            found.append(simulator)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert started.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def recipe_of(engine: Simulator, way: str = "two_phase", ladder: str = LADDER, **changes: Any) -> Recipe:
    timeouts = Timeouts(first=20, idle=20, total=60, question=10)
    source = Connection(engine.kind, engine.url, MODEL, enforcement=way, timeouts=timeouts)
    greedy = Recipe(source, "m", parse_ladder(ladder), 1, Sampling(0.0, 64), 2, retry_pauses=(0.0, 0.0), nested=True)
    return replace(greedy, **changes)


def gathered(engine: Simulator, recipe: Recipe, out: Path) -> tuple[Collected, pl.DataFrame, list[dict[str, Any]]]:
    """What a run collects, its rows, and the completions of the questions that it asks the engine for."""
    engine.bodies.clear()
    found = collect(QUESTIONS, recipe, out, local)
    of_questions = [body for path, body in engine.bodies if path in ("/v1/completions", "/completion")]
    return found, pl.read_parquet(out), of_questions


def answers_behind(bodies: list[dict[str, Any]]) -> set[tuple[int, ...]]:
    """The ids behind which answers were asked for: the other completions are of thoughts, or of one token."""
    limits = [(body, body.get("max_tokens", body.get("n_predict"))) for body in bodies]
    return {tuple(body["prompt"]) for body, most in limits if most == 64 and END in body["prompt"]}


@pytest.mark.parametrize("kind", KINDS)
def test_every_rung_is_answered_behind_the_ids_that_serving_has(kind: str, tmp_path: Path) -> None:
    with running(kind) as engine:
        cut, rows, nested = gathered(engine, recipe_of(engine), tmp_path / "n")
        alone, others, independent = gathered(engine, recipe_of(engine, nested=False), tmp_path / "i")
    same = ["prompt", "rung", "correct", "thinking_tokens", "total_tokens", "finish", "answer", "thinking_ended"]
    assert rows.select(same).equals(others.select(same))
    assert answers_behind(independent) == answers_behind(nested)
    assert rows["thinking_tokens"].to_list() == [0, 8, 16, THOUGHT, THOUGHT] * 3
    assert rows["thinking_ended"].to_list() == ["cut", "cut", "cut", "natural", "natural"] * 3
    assert (alone.drawn, alone.saved) == (alone.independent, 0.0)
    # One thought, four answers (the natural one once), and a look at the end marker behind two cuts.
    assert cut.independent == alone.independent == 3 * (8 + 16 + 2 * THOUGHT + 5 * ANSWERED)
    assert cut.drawn == 3 * (THOUGHT + 4 * ANSWERED + 2)


@pytest.mark.parametrize(("kind", "shorter"), [("vllm", 0), ("sglang", 0), ("llama_cpp", 0), ("llama_cpp", 1)])
def test_an_engine_that_holds_budgets_itself_is_cut_where_it_cuts(kind: str, shorter: int, tmp_path: Path) -> None:
    with running(kind) as engine:
        engine.shorter = shorter
        _, cut, _ = gathered(engine, recipe_of(engine, "native"), tmp_path / "n")
        _, served, _ = gathered(engine, recipe_of(engine, "native", nested=False), tmp_path / "i")
    same = ["prompt", "rung", "correct", "thinking_tokens", "finish", "answer", "thinking_ended"]
    assert cut.select(same).equals(served.select(same))
    assert cut["thinking_tokens"].to_list()[:3] == [0, 8 - shorter, 16 - shorter]


def test_the_trace_brings_the_evidence_of_its_cuts(tmp_path: Path) -> None:
    with running("vllm") as engine:
        engine.sure = {END: -3.5, STEP: -0.5}
        _, rows, _ = gathered(engine, recipe_of(engine, ladder="0,8,64"), tmp_path / "o")
    assert not list(faults(rows.lazy()))
    assert rows["trace_id"].n_unique() == 3 and rows["trace_id"].null_count() == 0
    assert rows["probe_answer"].equals(rows["answer"].alias("probe_answer"), null_equal=False)
    assert rows["probe_tokens"].to_list() == [ANSWERED] * 9
    assert rows["probe_logprob"].to_list() == rows["probe_min_logprob"].to_list() == [-0.25] * 9
    assert rows["end_logprob"].to_list() == [None, -3.5, None] * 3, "of a thought that was cut alone"


def test_sampled_traces_are_one_a_sample_with_seeds_of_their_own(tmp_path: Path) -> None:
    warm: dict[str, Any] = {"samples": 2, "sampling": Sampling(0.7, 64, 5)}
    with running("vllm") as engine:
        _, rows, bodies = gathered(engine, recipe_of(engine, ladder="8,64", **warm), tmp_path / "o")
    assert sorted(set(rows["sample_id"])) == [0, 1] and rows["trace_id"].n_unique() == 6
    seeds = [body["seed"] for body in bodies if body["temperature"] == 0.7]
    assert len(set(seeds)) == len(seeds), "no request repeats the random numbers of another one"
    probes = [body for body in bodies if body["temperature"] == 0.0 and body["max_tokens"] == 32]
    assert len(probes) == 6 * 2, "a probe is greedy all the same"


def test_a_killed_run_continues_and_an_engine_that_is_gone_stops_it(tmp_path: Path) -> None:
    with running("llama_cpp") as engine:
        recipe = replace(recipe_of(engine, ladder="0,8"), concurrency=1)
        stopped = iter(local(units(QUESTIONS, recipe), recipe))
        (first,) = next(stopped)
        stopped.close()  # type: ignore[attr-defined]
        assert [row["rung"] for row in first.rows] == ["0", "8"] and first.drawn == 8 + 2 * ANSWERED + 1
        engine.served = False
        with pytest.raises(BackendUnavailable, match="run again to continue"):
            collect(QUESTIONS, recipe, tmp_path / "o", local)
        engine.served = True
        found = collect(QUESTIONS, recipe, tmp_path / "o", local)
        assert found.drawn == 3 * first.drawn
        with pytest.raises(DatasetError, match=r"begun with other settings \(nested\)"):
            (tmp_path / "p.journal").write_text(journal_of(recipe))
            collect(QUESTIONS, replace(recipe, nested=False), tmp_path / "p", local)


def journal_of(recipe: Recipe) -> str:
    return json.dumps({"settings": settings(QUESTIONS, recipe)}) + "\n"


def collected(engine: Simulator, directory: Path, *options: str) -> Any:
    (directory / "p.jsonl").write_text('{"prompt": "2 + 2 =", "answer": "4", "scorer": "numeric"}\n')
    where = ["--url", engine.url, "--prompts", str(directory / "p.jsonl"), "--out", str(directory / "o")]
    return CliRunner().invoke(cli, ["collect", *where, "--max-answer-tokens", "64", *options])


def how(done: Any) -> Any:
    return json.loads(done.stdout)["collection"]


def test_nested_is_the_default_and_says_what_it_saves(tmp_path: Path) -> None:
    with running("vllm") as engine:
        done = collected(engine, tmp_path, "--ladder", "0,16,64", "--json")
        said = json.loads(done.stdout)
        assert (said["collection"], said["tokens"]["independent"]) == ("nested", 16 + THOUGHT + 3 * ANSWERED)
        assert said["tokens"]["drawn"] == THOUGHT + 3 * ANSWERED + 1 and 0 < said["tokens"]["saved"] < 1
        assert "tokens drawn" in collected(engine, tmp_path, "--ladder", "0,16,64").stdout
        alone = json.loads(collected(engine, tmp_path, "--ladder", "0,16,64", "--json", "--independent").stdout)
        assert (alone["collection"], alone["tokens"]["saved"]) == ("independent", 0.0)


def test_where_cuts_would_not_be_what_is_served_each_rung_is_asked_anew(tmp_path: Path) -> None:
    with running("vllm") as engine:
        engine.statuses = {"/tokenize": 404}
        done = collected(engine, tmp_path, "--ladder", "8,64", "--nested")
        assert done.exit_code != 0
        engine.statuses = {}
        assert how(collected(engine, tmp_path, "--ladder", "0,unlimited", "--json")) == "independent"
        refused = collected(engine, tmp_path, "--ladder", "0,unlimited", "--nested")
        assert "--nested: no rung has a cap" in str(refused.exception)
        engine.shorter = 2
        refused = collected(engine, tmp_path, "--ladder", "8,64", "--nested")
        assert "the engine itself thinks 6" in str(refused.exception)
        assert how(collected(engine, tmp_path, "--ladder", "8,64", "--json")) == "independent"


def test_the_thought_of_a_conversation_is_drawn_behind_all_of_it(tmp_path: Path) -> None:
    conversation = Prompt((Message(Role.SYSTEM, "Answer in words."), Message(Role.USER, "1 + 3 =")))
    question = Question("1 + 3 =", "4", None, "g", "numeric", {}, conversation)
    with running("vllm") as engine:
        collect([question], recipe_of(engine), tmp_path / "o.parquet", local)
        rendered = [body["messages"] for _, body in engine.bodies if "messages" in body]
    of_it = [one for one in rendered if one[-1]["content"] == "1 + 3 ="]
    assert of_it and all(one[0] == {"role": "system", "content": "Answer in words."} for one in of_it)
    rows = pl.read_parquet(tmp_path / "o.parquet")
    assert len(rows) == 5 and prompts_of(rows) == [conversation] * 5
