"""A challenger is promoted where it is proved to be better, and refused with a reason where it is not."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from router import artifact, registry
from router.adapters.sqlite_outcomes import SqliteOutcomes
from tests.fakes import RecordingObserver
from tests.training.synthetic import CAPS, outcomes_of, sums
from tests.training.test_traffic import row
from training import pipeline
from training.cli import cli
from training.records import write

TOP = len(CAPS) - 1


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gold set, a registry whose bundle certifies nothing, and a log of what it served: always the top rung."""
    home = tmp_path_factory.mktemp("retrain")
    write(sums(600), home / "gold.parquet")
    write(sums(90), home / "few.parquet")
    pipeline.run(home / "few.parquet", home / "novice", "static", compare=False)
    registry.promote(home / "models", home / "novice")
    return home


async def logged(path: Path, prompts: int, seed: int = 7) -> Path:
    """A log of labelled decisions, as the service would have written it."""
    await SqliteOutcomes(path, RecordingObserver(), texts=True).close()
    served = outcomes_of(prompts, seed)
    lengths = served.thinking_tokens[:, TOP]
    rows = [
        row(prompt, TOP, correct=float(correct), thinking_tokens=int(length), decision_id=f"d{i}", decided_at="2026")
        | {"tenant": "t", "model_version": "v", "rung": "high", "reason": "r", "propensity": 1.0}
        for i, (prompt, correct, length) in enumerate(zip(served.prompts, served.correct[:, TOP], lengths, strict=True))
    ]
    with closing(sqlite3.connect(path)) as db:
        names = list(rows[0])
        marks = ", ".join("?" * len(names))
        db.executemany(f"INSERT INTO decisions ({', '.join(names)}) VALUES ({marks})", [list(r.values()) for r in rows])
        db.commit()
    return path


def retrained(home: Path, log: Path, *more: str) -> tuple[int, dict[str, Any]]:
    command = ["retrain", "--log", log, "--gold", home / "gold.parquet", "--registry", home / "models"]
    command += ["--out", home / "challenger", "--json", *more]
    done = CliRunner().invoke(cli, list(map(str, command)))
    assert done.exit_code in (0, 1), done.output
    return done.exit_code, json.loads(done.stdout)


async def test_a_better_challenger_is_promoted(home: Path, tmp_path: Path) -> None:
    log = await logged(tmp_path / "log", 2_000)
    before = registry.history(home / "models")
    code, verdict = retrained(home, log, "--max-loss", "0.1", "--dry-run")
    assert (code, verdict["promoted"], verdict["refused"]) == (0, False, [])
    assert registry.history(home / "models") == before
    code, verdict = retrained(home, log, "--max-loss", "0.1")
    assert (code, verdict["promoted"]) == (0, True)
    assert verdict["gain"]["dr"]["low"] > 0 and verdict["gain"]["effective"] >= 500
    assert verdict["tokens"][1] < verdict["tokens"][0]
    served = artifact.load(registry.locate(home / "models"))
    assert served.version == registry.history(home / "models")[-1] != before[-1]
    # Against itself there is nothing to gain.
    code, again = retrained(home, log, "--max-loss", "0.1")
    assert (code, again["promoted"]) == (1, False)
    assert any("utility gain may be none" in why for why in again["refused"])
    registry.rollback(home / "models")


async def test_too_little_traffic_is_not_enough(home: Path, tmp_path: Path) -> None:
    code, verdict = retrained(home, await logged(tmp_path / "log", 120), "--max-loss", "0.1")
    assert (code, verdict["promoted"]) == (1, False)
    assert any("500 are needed" in why for why in verdict["refused"])


async def test_what_does_not_certify_is_refused_with_the_reason(home: Path, tmp_path: Path) -> None:
    code, verdict = retrained(home, await logged(tmp_path / "log", 120), "--max-loss", "0.0001")
    assert code == 1
    assert "nothing is certified for a loss of at most 0.0001" in verdict["refused"][0]
    assert np.isfinite(verdict["judged"])


def test_promote_and_rollback_by_hand(home: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    run = CliRunner()
    assert run.invoke(cli, ["rollback", "--registry", str(models)]).exception
    done = run.invoke(cli, ["promote", str(home / "novice"), "--registry", str(models), "--json"])
    assert json.loads(done.stdout)["model_version"] == registry.history(models)[-1]
    assert run.invoke(cli, ["rollback", "--registry", str(models)]).exception
