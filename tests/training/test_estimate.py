"""What adoption takes: the arithmetic, and the command that prints it."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.simulators import MODEL, THOUGHT, simulated
from training.certification import sample_size
from training.cli import cli
from training.collect.recipes import parse_ladder
from training.data.schema import DatasetError
from training.estimate import Engine, PerPrompt, cost, per_prompt

LADDER = parse_ladder("0,100,1000")
ENGINE = Engine(0.5, 0.01, (), answer=10, prompt=20, price_in=1.0, price_out=2.0)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for sample sizes has tests of its own."""
    monkeypatch.setattr(sample_size, "DRAWS", 5)


def test_independent_answers_pay_for_every_rung_and_a_trace_for_the_top_one() -> None:
    assert per_prompt(LADDER, 2, ENGINE, nested=False) == PerPrompt(6, 2 * 1_100, 60, 120)
    assert per_prompt(LADDER, 1, ENGINE, nested=True) == PerPrompt(4, 1_000, 30, 20)
    long = replace(ENGINE, answer=200)
    assert per_prompt(LADDER, 2, long, nested=True) == PerPrompt(14, 2_000, 6 * 232, 40), "and as many probes"


def test_thoughts_that_end_by_themselves_cost_no_more_than_their_length() -> None:
    known = Engine(None, None, [50, 3_000], 10, 20)
    assert per_prompt(LADDER, 1, known, nested=False).thinking_tokens == 0 + (50 + 100) / 2 + (50 + 1_000) / 2
    assert per_prompt(parse_ladder("0,unlimited"), 1, known, nested=False).thinking_tokens == 1_525
    with pytest.raises(DatasetError, match="--thought-tokens must say how long thoughts are"):
        per_prompt(parse_ladder("0,unlimited"), 1, ENGINE, nested=False)


def test_hours_and_money() -> None:
    found = cost(3_600, PerPrompt(2, 300, 50, 400), ENGINE, concurrency=4)
    assert (found.requests, found.thinking_tokens, found.answer_tokens) == (7_200, 1_080_000, 180_000)
    assert found.hours == pytest.approx((2 * 0.5 + 350 * 0.01) / 4)
    assert found.money == pytest.approx(3_600 * (400 * 1 + 350 * 2) / 1e6)
    unknown = cost(10, PerPrompt(2, 300, 50, 400), Engine(None, None, (), 10, 20), 4)
    assert (unknown.hours, unknown.money) == (None, None)


def estimated(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["collect", "--estimate", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_needs_no_engine() -> None:
    engine = ["--ladder", "0,512,unlimited", "--samples", "4", "--temperature", "0.6", "--thought-tokens", "2000"]
    engine += ["--independent"]
    told = json.loads(estimated(*engine, "--token-ms", "20", "--first-token-ms", "100", "--concurrency", "8", "--json"))
    assert told["collection"] == "independent" and not told["bounded"]
    assert told["per_prompt"]["requests"] == 12 and told["per_prompt"]["thinking_tokens"] == 4 * (512 + 2_000)
    (at_default,) = (row for row in told["targets"] if (row["max_loss"], row["true_loss"]) == (0.02, 0))
    assert at_default["calibration"] == 204 and at_default["splits"] == {"fit": 612, "certify": 204, "test": 204}
    assert at_default["cost"]["requests"] == 1_020 * 12 and at_default["cost"]["money"] is None
    assert at_default["cost"]["hours"] == pytest.approx(1_020 * (12 * 0.1 + (10_048 + 2_400) * 0.02) / 8 / 3_600)


def test_the_text_opens_with_the_default_target_and_says_what_is_an_upper_bound(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "2 + 2 ="}\n{"prompt": "3 + 3 ="}\n')
    lines = estimated("--prompts", str(tmp_path / "p.jsonl"), "--scorer", "agreement").splitlines()
    assert lines[0].startswith(
        "at 0.02: 204 calibration prompts where nothing is lost, which are about 1,020 prompts of a file for a choice "
        "by prompt, and 255 for one rung for everybody"
    )
    (own,) = (line.split() for line in lines if line.startswith("these prompts"))
    assert own[2:4] == ["2", "14"]
    assert any("nested: 7 requests, 256 thinking tokens" in line and "at most" in line for line in lines)


async def test_an_engine_is_measured_with_prompts_and_the_text_says_with_how_many_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "2 + 2 =", "answer": "4"}\n{"prompt": "3 + 3 =", "answer": "6"}\n')
    (tmp_path / "key").write_text("sesame\n")
    async with simulated("vllm") as engine:
        engine.key = "sesame"
        where = ["--url", engine.url, "--model", MODEL, "--key-file", str(tmp_path / "key"), "--ladder", "0,unlimited"]
        own = ["--prompts", str(tmp_path / "p.jsonl"), "--concurrency", "64"]
        text = await asyncio.to_thread(estimated, *where, *own)
        assert "speed was measured with 2 requests at a time; with 64 a token takes longer" in text
        assert f"{THOUGHT} thinking tokens" in text
        # Without prompts nothing but the speed is measured: the canary's answers are shorter than any real ones.
        known = json.loads(await asyncio.to_thread(estimated, *where, "--thought-tokens", "2000", "--json"))
    assert (known["per_prompt"]["thinking_tokens"], known["per_prompt"]["answer_tokens"]) == (2_000, 2 * 200)
    assert known["measured_at"] == 3 and known["targets"][0]["cost"]["hours"] is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "o", "--token-ms", "3"], "--token-ms is for --estimate"),
        (["--estimate", "--ladder", "0,unlimited"], "--thought-tokens"),
        ([], "'--out'"),
        (["--estimate", "--out", "o"], "--out and --estimate exclude each other"),
        (["--estimate", "--price-in", "3"], "--price-in needs --price-out"),
        (["--estimate", "--price-out", "3"], "--price-out needs --price-in"),
        (["--estimate", "--token-ms", "3"], "--token-ms needs --first-token-ms"),
        (["--estimate", "--unenforced"], "--unenforced needs --url"),
        (["--estimate", "--url", "http://x", "--model", "m", "--ladder", "0,1"], "--url needs --prompts to measure"),
        (["--out", "o", "--backend", "vllm"], "--backend needs --url"),
        (["--out", "o", "--count", "3"], "--count needs --gym"),
        (["--out", "o", "--scorer", "exact"], "--scorer needs --prompts"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, ["collect", *arguments])
    assert done.exit_code != 0 and message in f"{done.output}{done.exception}"
