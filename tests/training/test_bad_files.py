"""Every command that reads outcomes, with every kind of bad file: what is wrong, exit code 2, nothing left behind."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from router.bundle import registry
from router.domain import LabelSource, Outcome
from router.outcomes.sqlite import SqliteOutcomes
from tests.conftest import MODELS
from tests.support.fakes import RecordingObserver, completion_of, decision_of, request_of
from tests.support.synthetic import few_steps, sums
from training.__main__ import main
from training.data.labels import FEWEST
from training.data.schema import write

Spoil = Callable[[Path], object]


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    """A file that is wrongly accepted must not be fitted for minutes."""
    with few_steps():
        yield


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with so many outcomes that retraining reads its gold set."""
    path = tmp_path_factory.mktemp("log") / "outcomes.sqlite"

    async def reported() -> None:
        outcomes = SqliteOutcomes(path, RecordingObserver(), texts=True)
        for i in range(FEWEST):
            for completion in (None, completion_of(thinking_tokens=10)):
                outcomes.record(request_of(f"{i} + 1 ="), decision_of(f"d{i}", index=1), completion)
            await outcomes.report(Outcome(f"d{i}", 1.0, LabelSource.VERIFIER))
        await outcomes.close()

    asyncio.run(reported())
    return path


def frame(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Spoil:
    return lambda path: change(pl.read_parquet(path)).write_parquet(path)


def in_row_seven(column: str, value: object) -> Spoil:
    """Row 7 is the longest rung of the second prompt."""
    seventh = pl.int_range(pl.len()) == 7
    return frame(lambda rows: rows.with_columns(pl.when(seventh).then(pl.lit(value)).otherwise(column).alias(column)))


def falling(rows: pl.DataFrame) -> pl.DataFrame:
    caps = {0: 0, 1: 64, 2: 16, 3: None}
    return rows.with_columns(
        budget_tokens=pl.col("rung_order").replace_strict(caps, return_dtype=pl.Int64), thinking_tokens=pl.lit(0)
    )


BAD: dict[str, tuple[Spoil, str]] = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), ""),
    "empty": (lambda path: path.write_bytes(b""), ""),
    "another format": (lambda path: path.write_text("prompt,correct\n2 + 2 =,1\n"), ""),
    "no rows": (frame(lambda rows: rows.clear()), "no rows"),
    "missing column": (frame(lambda rows: rows.drop("correct")), "column correct: is missing"),
    "wrong type": (frame(lambda rows: rows.with_columns(correct=pl.lit("yes"))), "column correct: holds String"),
    "NaN label": (in_row_seven("correct", float("nan")), "row 7, column correct: nan"),
    "label above 1": (in_row_seven("correct", 1.5), "row 7, column correct: 1.5"),
    "unknown rung": (in_row_seven("rung", "17"), "row 7, column rung"),
    "negative tokens": (in_row_seven("thinking_tokens", -3), "row 7, column thinking_tokens: -3"),
    "no prompt": (in_row_seven("prompt", None), "row 7, column prompt: None"),
    "a group on both sides": (in_row_seven("group", "g"), "row 7, column group"),
    "two models": (in_row_seven("model", "fake/2"), "row 7, column model"),
    "an answer twice": (frame(lambda rows: pl.concat([rows, rows[7:8]])), "column sample_id: repeats row 7"),
    "tokens above the cap": (
        frame(lambda rows: rows.with_columns(thinking_tokens=pl.lit(900))), "column thinking_tokens: 900",
    ),
    "caps out of order": (frame(falling), "row 2, column budget_tokens: 16"),
    "a single class": (frame(lambda rows: rows.with_columns(correct=pl.lit(1.0))), "a single class"),
    "five prompts": (frame(lambda rows: rows.head(20)), "5 prompts are too few"),
    "no prompt has every rung": (
        frame(lambda rows: rows.filter((pl.int_range(pl.len()) // 4 + pl.col("rung_order")) % 4 != 0)), "every rung",
    ),
}  # fmt: skip

COMMANDS = {
    "validate": "validate bad.parquet",
    "fit": "fit --outcomes bad.parquet --out bundle",
    "fit, counted": "fit --outcomes bad.parquet --out bundle --registry models",
    "evaluate": f"evaluate --artifact {MODELS / 'pocket-router'} --outcomes bad.parquet",
    "plan": "plan --outcomes bad.parquet",
    "retrain": "retrain --gold bad.parquet --log {log} --registry models --out bundle",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry and a good file."""
    folder = tmp_path_factory.mktemp("bad")
    registry.promote(folder / "models", MODELS / "pocket-router")
    write(sums(100), folder / "good.parquet")
    return folder


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_and_nothing_is_left_behind(
    kind: str, place: Path, log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    spoil, message = BAD[kind]
    (bad := place / "bad.parquet").write_bytes((place / "good.parquet").read_bytes())
    spoil(bad)
    before = contents(place)
    for name, command in COMMANDS.items():
        monkeypatch.setattr("sys.argv", ["budget-train", *command.format(log=log).split()])
        with pytest.raises(SystemExit) as ended:
            main()
        *others, last = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2, name
        assert "bad.parquet" in last and message in last, name
        assert name == "validate" or not others, name
        assert contents(place) == before, name
