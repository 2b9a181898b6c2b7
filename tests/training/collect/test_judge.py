"""Another model as the judge of answers: what it is asked, what counts as a verdict, and what becomes of the rest."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from router.backends.connect import Connection
from router.domain import Sampling
from router.errors import BackendError, BackendMisconfigured, BackendTimeout, BackendUnavailable
from tests.support.court import Court, court
from tests.support.simulators import MODEL, simulated
from training.cli import cli
from training.collect.judge import JUDGE, PROMPT, Judge, JudgeClient, filled, parsed
from training.collect.questions import Question
from training.collect.recipes import parse_ladder
from training.collect.run import collect, local
from training.collect.units import Recipe
from training.data.overview import Overview, overview
from training.data.schema import DatasetError
from training.report.text import judged_by


async def verdict(of: Court, seconds: float = 30.0, **given: Any) -> float:
    async with AsyncExitStack() as stack:
        client = JudgeClient(Judge(of.url, "wise", seconds=seconds, **given), 4, stack)
        return await client.verdict("2 + 2 =", "4", "It is {reference}, 4.")


@pytest.mark.parametrize(
    ("text", "value"),
    [("yes", 1), (" No.\n", 0), ("YES", 1), ("0", 0), ("1", 1), ("1.0", 1), ("0.25", 0.25), (".5", 0.5),
     ("<think>no, or is it?</think>\nyes", 1)],
)  # fmt: skip
def test_a_verdict_is_one_word_or_a_number_from_0_to_1(text: str, value: float) -> None:
    assert parsed(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "yes and no", "maybe", "1.5", "-1", "2", "10", "nan", "inf", "1e-1", "yes, ignore the rest", "50%", "0.5/1"],
)  # fmt: skip
def test_all_else_is_no_verdict(text: str) -> None:
    with pytest.raises(BackendError, match="neither yes, no, nor a number from 0 to 1"):
        parsed(text)


def test_what_is_filled_in_is_not_filled_in_again() -> None:
    assert filled("{question}|{answer}|{reference}|{x}", "{answer}", "r", "{reference}") == "{answer}|{reference}|r|{x}"


async def test_the_judge_sees_question_reference_and_answer_and_nothing_of_ours_is_sent_beside_them() -> None:
    async with court() as judge:
        assert await verdict(judge, key="sesame") == 1
        (body,) = judge.asked
        assert judge.keys == {"Bearer sesame"}
    assert body["messages"] == [{"role": "user", "content": filled(PROMPT, "2 + 2 =", "4", "It is {reference}, 4.")}]
    assert set(body) == {"model", "messages", "max_completion_tokens"}, (
        "hosted models refuse temperature and max_tokens"
    )


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"says": "perhaps"}, BackendError),
        ({"status": 401}, BackendMisconfigured),
        ({"status": 503}, BackendUnavailable),
        ({"seconds": 5.0}, BackendTimeout),
        ({"says": "yes" * 1_000_000}, BackendError),
    ],
    ids=lambda how: str(how)[:30],
)
async def test_a_judge_that_fails_is_a_typed_error_in_time(how: dict[str, Any], error: type[BackendError]) -> None:
    async with court(**how) as judge:
        with pytest.raises(error):
            await verdict(judge, seconds=0.5 if "seconds" in how else 30.0)


@contextmanager
def prompts(folder: Path, *lines: dict[str, Any]) -> Iterator[Path]:
    (path := folder / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    yield path


async def collected(folder: Path, judge: Court, *more: str) -> Result:
    """`budget-train collect` of two prompts without answers, judged."""
    with prompts(folder, {"prompt": "2 + 2 ="}, {"prompt": "Why is the sky blue?"}) as path:
        async with simulated("vllm") as engine:
            where = ["--url", engine.url, "--model", MODEL, "--ladder", "0,16", "--prompts", str(path)]
            judged = ["--scorer", "judge", "--judge-url", judge.url, *more]
            command = ["collect", "--out", str(folder / "o.parquet"), *where, *judged]
            return await asyncio.to_thread(CliRunner().invoke, cli, command)


async def test_the_outcome_file_names_the_judge_and_its_prompt(tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("Q {question} A {answer}: yes or no?")
    async with court(right="sky") as judge:
        done = await collected(tmp_path, judge, "--judge-prompt", str(tmp_path / "prompt"))
        assert done.exit_code == 0, (done.output, done.exception)
    rows = pl.read_parquet(tmp_path / "o.parquet")
    assert set(rows["label_source"]) == {"judge"}
    right = {prompt for prompt, correct in rows.select("prompt", "correct").iter_rows() if correct == 1}
    assert right == {"Why is the sky blue?"}
    kept = json.loads(pl.read_parquet_metadata(tmp_path / "o.parquet")["judge"])
    assert kept == {"model": "wise", "prompt": "Q {question} A {answer}: yes or no?"}
    found = overview(tmp_path / "o.parquet")
    assert isinstance(found, Overview) and found.judge == "wise"
    assert "judged by wise" in judged_by(found.judge) and "does not name" in judged_by("")


def recipe_of(engine: str, judge: str) -> Recipe:
    source = Connection("vllm", engine, MODEL)
    return Recipe(source, MODEL, parse_ladder("0,16"), 1, Sampling(0, 64), 2, Judge(judge, "wise"), retry_pauses=())


QUESTION = Question("2 + 2 =", "", None, "g", JUDGE, {})


@pytest.mark.parametrize("nested", [False, True])
async def test_an_answer_without_a_verdict_carries_no_label(tmp_path: Path, nested: bool) -> None:
    async with court(says="perhaps") as judge, simulated("vllm") as engine:
        recipe = replace(recipe_of(engine.url, judge.url), nested=nested)
        found = await asyncio.to_thread(collect, [QUESTION], recipe, tmp_path / "o.parquet", local)
    assert [rung["error"] for rung in found.rungs] == [1, 1]
    rows = pl.read_parquet(tmp_path / "o.parquet")
    assert set(rows["finish"]) == {"error"} and rows["thinking_tokens"].null_count() == len(rows)


async def test_equal_answers_of_a_trace_have_one_verdict(tmp_path: Path) -> None:
    async with court() as judge, simulated("vllm") as engine:
        recipe = replace(recipe_of(engine.url, judge.url), nested=True)
        await asyncio.to_thread(collect, [QUESTION], recipe, tmp_path / "o.parquet", local)
        assert len(judge.asked) == 1
    assert pl.read_parquet(tmp_path / "o.parquet")["correct"].to_list() == [1, 1]


async def test_a_judge_that_is_down_stops_the_run_which_only_the_same_judge_continues(
    tmp_path: Path,
) -> None:
    out = tmp_path / "o.parquet"
    async with court(status=503) as judge, simulated("vllm") as engine:
        recipe = recipe_of(engine.url, judge.url)
        with pytest.raises(BackendUnavailable, match="judge: HTTP 503; the same command continues"):
            await asyncio.to_thread(collect, [QUESTION], recipe, out, local)
        judge.status = 200
        another = replace(recipe, judge=Judge(judge.url, "another"))
        with pytest.raises(DatasetError, match=r"begun with other settings \(judge\)"):
            await asyncio.to_thread(collect, [QUESTION], another, out, local)
        await asyncio.to_thread(collect, [QUESTION], recipe, out, local)
    assert set(pl.read_parquet(out)["label_source"]) == {"judge"}


@pytest.mark.parametrize(("arguments", "said"), [
    (["--scorer", "judge"], "--scorer judge needs --url"),
    (["--scorer", "judge", "--judge-url", "http://127.0.0.1:1"], "it cannot be reached"),
    (["--judge-model", "m"], "--judge-model needs --judge-url"),
    (["--scorer", "judge", "--judge-url", "http://127.0.0.1:1", "--judge-prompt", "bare"], "must hold {question} and"),
])  # fmt: skip
def test_a_judge_that_is_not_there_is_said_before_anything_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bare").write_text("Is it right?")
    with prompts(tmp_path, {"prompt": "2 + 2 ="}) as path:
        done = CliRunner().invoke(cli, ["collect", "--out", "o", "--prompts", str(path), *arguments])
    assert done.exit_code != 0 and said in f"{done.output}{done.exception}" and not Path("o").exists()
