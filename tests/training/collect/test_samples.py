"""Independent answers from an engine over HTTP: a real server in vLLM's shape, and its faults."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from router.backends.connect import Connection
from router.backends.http import Timeouts
from router.bundle.manifest import is_fingerprint
from router.domain import (
    Completion,
    CountSource,
    Enforcement,
    FinishReason,
    Message,
    Prompt,
    ReasoningBudget,
    Role,
    Sampling,
    ToolCall,
)
from router.errors import BackendError, BackendUnavailable
from tests.support.ports import free_port
from tests.support.simulators import ANSWER, MODEL, THOUGHT, Simulator, simulated
from training.certification import sample_size
from training.cli import cli
from training.collect.answering import held
from training.collect.measure import measure
from training.collect.questions import Question
from training.collect.recipes import fingerprint_at, parse_ladder
from training.collect.run import collect, local, unanswered
from training.collect.units import Recipe
from training.data.dataset import read, validate
from training.data.overview import Overview, overview

QUESTIONS = [Question(f"{i} + {4 - i} =", "4", "sums", f"g{i}", "numeric", {}) for i in range(4)]


@pytest.fixture
def engine() -> Iterator[Simulator]:
    """An engine on a thread of its own; collection has an event loop of its own too."""
    started, stop, running = threading.Event(), asyncio.Event(), []
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with simulated("vllm") as simulator:
            running.append(simulator)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert started.wait(10)
    yield running[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def recipe_of(url: str, **sampling: Any) -> Recipe:
    repeats = 2 if sampling.get("temperature") else 1
    source = Connection("vllm", url, MODEL, timeouts=Timeouts(first=5, idle=5, total=5, question=1))
    ladder = parse_ladder("0,16,unlimited")
    return Recipe(source, "vllm-1.0/tiny/x/native", ladder, repeats, Sampling(**sampling), 3, retry_pauses=(0.01, 0.01))


def asked(engine: Simulator) -> list[dict[str, Any]]:
    """Requests about QUESTIONS, the canary's left out."""
    texts = {question.prompt for question in QUESTIONS}
    bodies = [body for path, body in engine.bodies if path == "/v1/chat/completions"]
    return [body for body in bodies if body["messages"][-1]["content"] in texts]


def test_budgets_answers_and_counts_reach_the_file(engine: Simulator, tmp_path: Path) -> None:
    collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local)
    outcomes = read(tmp_path / "o.parquet")
    assert outcomes.correct.tolist() == [[1, 1, 1]] * 4
    assert outcomes.thinking_tokens.tolist() == [[0, 16, THOUGHT]] * 4
    assert outcomes.model == "vllm-1.0/tiny/x/native"
    rows = pl.read_parquet(tmp_path / "o.parquet")
    assert set(rows["backend"]) == {"vllm"}
    assert rows.filter(pl.col("rung") == "16")["finish"].to_list() == ["forced"] * 4
    assert (rows["total_tokens"] - rows["thinking_tokens"]).min() >= len(ANSWER)  # type: ignore[operator]
    assert sorted(body.get("thinking_token_budget", -1) for body in asked(engine)) == [-1] * 8 + [16] * 4


CONVERSATION = Prompt(
    (
        Message(Role.SYSTEM, "Be brief."),
        Message(Role.USER, "2 + 2 ="),
        Message(Role.ASSISTANT, "", (ToolCall("1", "add", "{}"),)),
        Message(Role.TOOL, "", tool_call_id="1"),
        Message(Role.USER, "yes, go on"),
    )
)


def test_a_conversation_is_sent_whole_and_comes_back_in_the_file(engine: Simulator, tmp_path: Path) -> None:
    question = Question("yes, go on", "4", None, "g", "numeric", {}, CONVERSATION)
    collect([question, *QUESTIONS], recipe_of(engine.url), tmp_path / "o.parquet", local)
    sent = [body["messages"] for path, body in engine.bodies if path == "/v1/chat/completions"]
    assert (
        sum([message["role"] for message in one] == ["system", "user", "assistant", "tool", "user"] for one in sent)
        == 3
    )
    assert validate(tmp_path / "o.parquet")[0].endswith("10 are needed"), "no other fault than their number"
    assert CONVERSATION in read(tmp_path / "o.parquet").prompts


def test_repeats_have_seeds_of_their_own_that_a_resumed_run_repeats(engine: Simulator, tmp_path: Path) -> None:
    recipe = recipe_of(engine.url, temperature=0.7, seed=5)
    collect(QUESTIONS, recipe, tmp_path / "o.parquet", local)
    seeds = sorted(body["seed"] for body in asked(engine))
    assert len(set(seeds)) == len(seeds) == 4 * 3 * 2
    engine.bodies.clear()
    collect(QUESTIONS, recipe, tmp_path / "again.parquet", local)
    assert sorted(body["seed"] for body in asked(engine)) == seeds


def test_a_fault_that_passes_is_tried_again(engine: Simulator, tmp_path: Path) -> None:
    engine.fails[QUESTIONS[1].prompt] = 2
    collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local)
    assert len(read(tmp_path / "o.parquet")) == 4


def test_a_prompt_that_always_fails_is_the_engines_error_and_never_wrong(
    engine: Simulator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine.fails[QUESTIONS[1].prompt] = 10**9
    tally = collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local).rungs
    said = capfd.readouterr().err
    assert said.startswith("collect: 12 answers at 3 rungs, 3 at a time\n")
    assert said.count("the first answer that failed, at rung") == 1 and "HTTP 500" in said
    assert "collect, answers: 12 of 12" in said and unanswered(tally) == []
    assert [(row["right"], row["wrong"], row["error"]) for row in tally] == [(3, 0, 1)] * 3
    outcomes, seen = read(tmp_path / "o.parquet"), overview(tmp_path / "o.parquet")
    assert sorted(prompt.text for prompt in outcomes.prompts) == sorted(
        q.prompt for q in QUESTIONS if q is not QUESTIONS[1]
    )
    assert isinstance(seen, Overview) and (seen.errors, seen.lost, seen.prompts) == (3, 1, 3)


def test_an_engine_that_is_gone_stops_the_run_and_keeps_what_is_done(engine: Simulator, tmp_path: Path) -> None:
    engine.fails[QUESTIONS[3].prompt] = 10**9
    engine.leaves_after_a_fault = True
    with pytest.raises(BackendUnavailable, match="run again to continue"):
        collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local)
    before = len(asked(engine))
    engine.served, engine.fails = True, {}
    collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local)
    assert len(asked(engine)) - before < 12
    assert len(read(tmp_path / "o.parquet")) == 4


def test_the_window_of_an_engine_refuses_a_ladder_before_anything_is_asked(engine: Simulator, tmp_path: Path) -> None:
    engine.window = 512
    (tmp_path / "p.jsonl").write_text('{"prompt": "2 + 2 =", "answer": "4"}\n')
    arguments = ["collect", "--url", engine.url, "--prompts", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(cli, [*arguments, "--ladder", "0,1024", "--max-answer-tokens", "64"])
    assert done.exit_code != 0 and "exceed the engine's window of 512 tokens" in str(done.exception)
    assert not [path for path, _ in engine.bodies if path == "/v1/chat/completions"]


def test_a_rung_without_any_answer_is_exit_code_1(engine: Simulator, tmp_path: Path) -> None:
    engine.fails["2 + 2 ="], engine.fault_status = 10**9, 400
    (tmp_path / "p.jsonl").write_text('{"prompt": "2 + 2 =", "answer": "4"}\n')
    arguments = ["collect", "--url", engine.url, "--prompts", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(cli, [*arguments, "--ladder", "0,16", "--max-answer-tokens", "64", "--independent"])
    assert done.exit_code == 1 and "rung 0, 16 has no answer at all" in done.stderr
    assert "the first answer that failed, at rung" in done.stderr and "HTTP 400" in done.stderr


def test_an_estimate_finds_kind_and_model_and_needs_no_temperature(
    engine: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_size, "DRAWS", 5)
    (tmp_path / "p.jsonl").write_text('{"prompt": "2 + 2 =", "answer": "4"}\n')
    arguments = ["collect", "--estimate", "--url", engine.url, "--ladder", "0,16", "--samples", "4", "--json"]
    done = CliRunner().invoke(cli, [*arguments, "--prompts", str(tmp_path / "p.jsonl"), "--max-answer-tokens", "64"])
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    assert json.loads(done.stdout)["per_prompt"]["requests"] == (1 + 2) * 4, "a thought and two cuts"


def test_the_fingerprint_of_an_engine_is_that_of_its_collected_outcomes(engine: Simulator) -> None:
    name = fingerprint_at(engine.url, "vllm", MODEL)
    assert is_fingerprint(name) and f"/{MODEL}/" in name and not is_fingerprint(MODEL)
    assert fingerprint_at(f"{engine.url}/v1", "", name) == name
    with pytest.raises(BackendError, match=f"it serves {MODEL}; not another"):
        fingerprint_at(engine.url, "vllm", "another")


def test_a_few_requests_measure_an_engine(engine: Simulator) -> None:
    source = recipe_of(engine.url).source
    assert isinstance(source, Connection)
    seen = measure(source, [q.asked for q in QUESTIONS], ReasoningBudget("unlimited", None), Sampling(0, 64), 2)
    assert seen.thoughts == [THOUGHT] * 4 and seen.answer >= len(ANSWER) and seen.prompt > 0
    assert seen.first_token > 0 and seen.per_token >= 0
    assert sorted(body["messages"][-1]["content"] for body in asked(engine)) == sorted(q.prompt for q in QUESTIONS)


def test_an_answer_beyond_its_budget_is_the_engines_error() -> None:
    rung = ReasoningBudget("16", 16)
    end = Completion(FinishReason.FORCED, rung, Enforcement.NATIVE, CountSource.ENGINE, 5, 19, 3)
    assert [held(replace(end, thinking_tokens=tokens)) for tokens in (None, 16, 18, 19)] == [True, True, True, False]
    assert held(replace(end, enforcement=Enforcement.HINT)) and held(replace(end, attempts=2))


def test_an_engine_that_holds_no_budget_is_not_collected_from(engine: Simulator, tmp_path: Path) -> None:
    engine.faults.ignores_budget = engine.faults.no_tokens = True
    with pytest.raises(BackendUnavailable, match="no way to hold budgets"):
        collect(QUESTIONS, recipe_of(engine.url), tmp_path / "o.parquet", local)


def test_no_engine_at_all_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="nothing listens at its port"):
        collect(QUESTIONS, recipe_of(f"http://127.0.0.1:{free_port()}"), tmp_path / "o.parquet", local)


def test_a_rung_without_an_answer_is_tried_again_at_the_next_as_in_serving(engine: Simulator, tmp_path: Path) -> None:
    engine.mute, engine.faults.no_tokens = {QUESTIONS[0].prompt}, True  # and no second phase helps
    recipe = replace(recipe_of(engine.url), concurrency=1, ladder=parse_ladder("16,unlimited"))
    collect(QUESTIONS, recipe, tmp_path / "o.parquet", local)
    rows = pl.read_parquet(tmp_path / "o.parquet").filter(pl.col("prompt") == QUESTIONS[0].prompt).sort("rung_order")
    assert rows["finish"].to_list() == ["no_answer"] * 2
    assert rows["thinking_tokens"].to_list() == [16 + THOUGHT, 2 * THOUGHT]
    assert rows["correct"].to_list() == [0, 0]
    assert len(asked(engine)) == 3 * 2 + 2 * 2
