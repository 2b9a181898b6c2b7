"""The replay of every way to choose a budget, from a file to a table."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from tests.training.stopping.test_stage import CAPS, settled
from training.cli import cli


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with an answer at every rung, of a model whose answers settle early."""
    traces = settled(np.random.default_rng(0), 300)
    rows = [
        {
            "prompt": traces.prompts[i].text,
            "budget_tokens": cap,
            "answer": str(traces.answers[i, k]),
            "correct": traces.correct[i, k],
            "thinking_tokens": cap,
            "probe_tokens": 5,
            "probe_logprob": traces.probe_logprob[i, k],
        }
        for i in range(len(traces))
        for k, cap in enumerate(CAPS)
    ]
    path = tmp_path_factory.mktemp("replay") / "outcomes.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["replay", *map(str, arguments)])


def test_every_family_is_replayed_and_probes_are_charged(file: Path, tmp_path: Path) -> None:
    plot = tmp_path / "replay.svg"
    done = run("--outcomes", file, "--no-text", "--json", "--plot", plot)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["traces"], said["rungs"]) == (300, [str(cap) for cap in CAPS])
    assert {row["family"] for row in said["rows"]} == {"fixed", "agree", "threshold", "learned"}
    rows = {row["policy"]: row for row in said["rows"]}
    assert rows["always 800 (top)"]["saved"] == rows["always 800 (top)"]["loss"] == 0
    agree = rows["agree 1 from 0"]
    assert agree["probe_tokens"] > 5
    spent = agree["thinking_tokens"] + agree["probe_tokens"]
    assert agree["saved"] == pytest.approx(1 - spent / 800)
    assert agree["loss"] < 0 < agree["saved_interval"][0] < agree["saved"] < agree["saved_interval"][1]
    assert plot.read_text().startswith("<?xml")


def test_a_reader_gets_a_table(file: Path) -> None:
    done = run("--outcomes", file, "--no-text", "--max-loss", 0.05)
    assert "300 traces in 300 groups" in done.stdout and "above 0.05" in done.stdout
    assert "always 800 (top)" in done.stdout and "learned, price 0" in done.stdout


def test_probes_of_unknown_size_are_charged_as_asked(file: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.parquet"
    pl.read_parquet(file).drop("probe_tokens").write_parquet(bare)
    rows = json.loads(run("--outcomes", bare, "--no-text", "--json", "--probe-tokens", 7).stdout)["rows"]
    (agree,) = (row for row in rows if row["policy"] == "agree 3 from 0")
    assert agree["probe_tokens"] == 4 * 7


def test_a_file_without_answers_is_refused_by_name(file: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.parquet"
    pl.read_parquet(file).drop("answer").write_parquet(bare)
    fault = str(run("--outcomes", bare).exception)
    assert fault == f"{bare}: column answer: is missing; `budget-train collect` records it"
