"""The outcome log: a report is on disk when it returns; decisions never wait for the disk."""

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from router.domain import (
    FinishReason,
    LabelSource,
    Message,
    Outcome,
    Prompt,
    Role,
)
from router.errors import DrainError, OutcomeLogError, OutcomeLogHangs
from router.events import Degraded, RecordsLost
from router.files import locked
from router.outcomes.sqlite import SqliteOutcomes, read_rows
from tests.support.clock import Clock
from tests.support.fakes import (
    FINGERPRINT,
    RISING,
    TENANT,
    RecordingObserver,
    completion_of,
    decision_of,
    request_of,
    unforeseen,
    until,
)
from tests.support.log_entries import UNWRITABLE, Entry, recorded_among_others


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "outcomes.sqlite"


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


def rows(path: Path) -> dict[str, dict[str, Any]]:
    """What another process sees in the file, by decision."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        return {row["decision_id"]: dict(row) for row in db.execute("SELECT * FROM decisions")}


def outcome(id_: str = "a-decision", correct: float = 1.0) -> Outcome:
    return Outcome(id_, correct, LabelSource.VERIFIER)


async def test_only_what_is_acknowledged_waits_for_the_disk(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    said: list[str] = []
    log._file.connection().set_trace_callback(said.append)
    log.record(request_of(), decision_of(), None)
    assert await log.report(outcome())
    await log.close()
    words = ("FULL", "NORMAL", "INSERT", "UPDATE", "COMMIT")
    told = [word for line in said for word in words if word in line]
    assert told == ["INSERT", "COMMIT", "FULL", "UPDATE", "COMMIT", "NORMAL"]


async def test_a_report_is_on_disk_when_it_returns(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    assert await log.report(outcome(correct=0.5))
    row = rows(path)["a-decision"]
    assert (row["correct"], row["label_source"]) == (0.5, "verifier")
    assert row["reported_at"]
    await log.close()


async def test_a_report_of_an_unknown_decision_is_reported(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    assert not await log.report(outcome("no-such"))
    assert rows(path) == {}
    await log.close()


async def test_a_report_may_be_repeated(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    assert await log.report(outcome())
    assert await log.report(outcome())
    assert len(rows(path)) == 1
    await log.close()


async def test_the_last_report_counts(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    for correct in (1.0, 0.0):
        await log.report(outcome(correct=correct))
    assert rows(path)["a-decision"]["correct"] == 0.0
    await log.close()


async def test_a_report_reaches_a_decision_of_an_earlier_run(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    await log.close()
    log = SqliteOutcomes(path, observer)
    assert await log.report(outcome())
    await log.close()


async def test_a_report_touches_its_own_decision_only(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    for id_ in ("a", "b"):
        log.record(request_of(), decision_of(id_), None)
    await log.report(outcome("b"))
    assert [rows(path)[id_]["correct"] for id_ in ("a", "b")] == [None, 1.0]
    await log.close()


async def test_a_decision_is_kept_with_its_propensity_and_score(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    await log.close()
    row = rows(path)["a-decision"]
    assert (row["tenant"], row["rung"], row["source"], row["propensity"]) == (TENANT, "128", "classifier", 1.0)
    assert tuple(json.loads(row["score"])["quality"]) == RISING.quality


@pytest.mark.parametrize("known", [True, False])
async def test_a_score_is_found_as_it_was(path: Path, observer: RecordingObserver, known: bool) -> None:
    score = replace(RISING if known else unforeseen(*RISING.quality), far=known)
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(score=score), None)
    found = await log.find("a-decision")
    assert found is not None and found[1].score == score
    await log.close()


@pytest.mark.parametrize("known", [True, False])
async def test_a_score_that_an_earlier_version_kept_is_found(
    path: Path, observer: RecordingObserver, known: bool
) -> None:
    score = RISING if known else unforeseen(*RISING.quality)
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    assert await log.report(outcome())
    names = ("mean", "p50", "p90", "p99")
    rungs = [
        dict(zip(names, rung, strict=True)) if known else None
        for rung in zip(*(getattr(score, n) for n in names), strict=True)
    ]
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE decisions SET score = ?", (json.dumps({"quality": score.quality, "tokens": rungs}),))
        db.commit()
    found = await log.find("a-decision")
    assert found is not None and found[1].score == score
    await log.close()


async def test_a_decision_without_a_score_is_kept(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(score=None), None)
    await log.close()
    assert rows(path)["a-decision"]["score"] is None


async def test_the_end_of_a_generation_joins_its_decision(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    log.record(request_of(), decision_of(), completion_of(thinking_tokens=100, finish=FinishReason.FORCED))
    await log.close()
    row = rows(path)["a-decision"]
    assert (row["finish"], row["thinking_tokens"], row["answer_tokens"]) == ("forced", 100, 2)


async def test_tokens_that_nobody_counted_stay_unknown(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    log.record(request_of(), decision_of(), completion_of(thinking_tokens=None))
    await log.close()
    assert rows(path)["a-decision"]["thinking_tokens"] is None


async def test_closing_writes_what_waits(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    for i in range(1_000):
        log.record(request_of(), decision_of(str(i)), None)
    await log.close()
    assert len(rows(path)) == 1_000
    assert not observer.records


async def test_closing_an_unused_log_is_no_work(path: Path, observer: RecordingObserver) -> None:
    await SqliteOutcomes(path, observer).close()
    assert rows(path) == {}


async def test_a_full_buffer_drops_and_is_observed(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer, buffer=10)
    for i in range(13):
        log.record(request_of(), decision_of(str(i)), None)
    assert [(lost.cause, lost.records) for lost in observer.of(RecordsLost)] == [("full", 1)] * 3
    await log.close()
    assert len(rows(path)) == 10


async def test_after_a_full_buffer_records_are_kept_again(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer, buffer=1)
    for id_ in ("dropped", "a"):
        log.record(request_of(), decision_of(id_), None)
    await log.report(outcome("a"))
    log.record(request_of(), decision_of("b"), None)
    await log.close()
    assert sorted(rows(path)) == ["a", "b"]


async def test_a_twin_decision_is_no_error(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    for _ in range(2):
        log.record(request_of(), decision_of(), None)
    await log.close()
    assert len(rows(path)) == 1
    assert not observer.records


async def test_recording_does_not_wait_for_a_locked_file(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.perf_counter()
        for id_ in ("a", "b"):
            log.record(request_of(), decision_of(id_), None)
            await asyncio.sleep(0.05)
        assert time.perf_counter() - started < 5, "SQLite itself would wait as long as that"
        other.execute("ROLLBACK")
    await log.close()
    assert sorted(rows(path)) == ["a", "b"]


def break_(path: Path) -> None:
    """Take the table away."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("ALTER TABLE decisions RENAME TO elsewhere")


async def test_a_report_that_cannot_be_kept_is_an_error(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    break_(path)
    with pytest.raises(OutcomeLogError, match="decisions"):
        await log.report(outcome())
    await log.close()


async def test_records_that_cannot_be_kept_are_observed(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    break_(path)
    log.record(request_of(), decision_of(), None)
    with pytest.raises(DrainError, match="lost: 1"):
        await log.close()
    assert {degraded.dependency for degraded in observer.of(Degraded)} == {"outcomes"}
    assert [(lost.cause, lost.records) for lost in observer.of(RecordsLost)] == [("exit", 1)]


async def test_records_lost_to_a_report_that_fails_are_observed(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    break_(path)
    log.record(request_of(), decision_of(), None)
    with pytest.raises(OutcomeLogError):
        await log.report(outcome())
    with pytest.raises(DrainError):
        await log.close()
    assert observer.of(Degraded)
    assert observer.of(RecordsLost)


async def test_a_report_returns_under_steady_traffic(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)

    async def traffic() -> None:
        for i in count():
            log.record(request_of(), decision_of(str(i)), None)
            await asyncio.sleep(0.001 if i % 10 == 0 else 0)  # thousands a second, and the writer has its turns

    busy = asyncio.create_task(traffic())
    await asyncio.sleep(0.05)
    try:
        async with asyncio.timeout(30):
            assert await log.report(outcome())
    finally:
        busy.cancel()
        await log.close()


def test_a_path_through_a_file_is_refused(tmp_path: Path, observer: RecordingObserver) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutcomeLogError, match="file"):
        SqliteOutcomes(tmp_path / "file" / "outcomes.sqlite", observer)


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path, observer: RecordingObserver) -> None:
    with pytest.raises(OutcomeLogError, match=tmp_path.name):
        SqliteOutcomes(tmp_path, observer)


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path, observer: RecordingObserver) -> None:
    path = tmp_path / "outcomes.sqlite"
    path.write_text("a diary, not a database\n" * 100)
    with pytest.raises(OutcomeLogError, match=r"outcomes\.sqlite"):
        SqliteOutcomes(path, observer)
    assert path.read_text().startswith("a diary")


async def test_prompts_are_named_by_a_keyed_hash_and_kept_only_where_wanted(
    tmp_path: Path, observer: RecordingObserver
) -> None:
    secret = "the patient is called Rosencrantz"
    logs = {texts: tmp_path / f"{texts}.sqlite" for texts in (False, True)}
    for texts, path in logs.items():
        log = SqliteOutcomes(path, observer, texts=texts, secret=b"key")
        for id_, text in (("one", secret), ("same", secret), ("other", "2 + 2 =")):
            log.record(request_of(text), decision_of(id_), None)
        await log.close()
    assert b"Rosencrantz" not in logs[False].read_bytes()
    found = rows(logs[True])
    assert found["one"]["prompt"] == secret
    assert found["one"]["prompt_id"] == found["same"]["prompt_id"] != found["other"]["prompt_id"]
    assert found["one"]["prompt_id"] == rows(logs[False])["one"]["prompt_id"]


async def test_without_a_secret_the_file_has_one_of_its_own(tmp_path: Path, observer: RecordingObserver) -> None:
    ids: list[str] = []
    for name in ("a", "b", "a"):
        log = SqliteOutcomes(tmp_path / name, observer)
        log.record(request_of(), decision_of(f"{len(ids)}"), None)
        await log.close()
        ids.append(rows(tmp_path / name)[f"{len(ids)}"]["prompt_id"])
    assert ids[0] == ids[2] != ids[1]


async def test_a_conversation_is_kept_whole(path: Path, observer: RecordingObserver) -> None:
    prompt = Prompt((Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "2 + 2 =")))
    log = SqliteOutcomes(path, observer, texts=True)
    log.record(replace(request_of(), prompt=prompt), decision_of(), None)
    await log.close()
    row = rows(path)["a-decision"]
    assert row["prompt"] == "2 + 2 ="
    assert json.loads(row["messages"]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2 ="},
    ]


async def test_a_conversation_is_named_by_a_hash_of_tenant_and_id(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    for name, tenant, conversation in (("a", "t", "c 1"), ("b", "t", "c 1"), ("c", "u", "c 1"), ("d", "t", None)):
        options = replace(request_of().options, conversation_id=conversation)
        log.record(replace(request_of(name), options=options, tenant=tenant), decision_of(name), None)
    await log.close()
    named = {name: row["conversation"] for name, row in rows(path).items()}
    assert named["a"] == named["b"] and named["c"] not in (named["a"], None) and named["d"] is None
    assert "c 1" not in str(rows(path))


async def test_a_file_of_an_earlier_version_goes_on(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer, texts=True)
    log.record(request_of(), decision_of(), None)
    await log.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE decisions DROP COLUMN conversation")
        db.execute("UPDATE decisions SET messages = ?", ('[["system", "Be brief."], ["user", "2 + 2 ="]]',))
        db.commit()
    log = SqliteOutcomes(path, observer, texts=True)
    found = await log.find("a-decision")
    assert found is not None and found.prompt is not None
    assert [message.role for message in found.prompt.messages] == [Role.SYSTEM, Role.USER]
    await log.close()


async def test_what_off_policy_estimation_needs_is_there(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    await log.close()
    row = rows(path)["a-decision"]
    assert json.loads(row["propensities"]) == [0, 0, 0, 0, 1, 0]
    assert json.loads(row["ladder"])[4] == ["128", 128]
    assert json.loads(row["certificate"])["alpha"] == 0.05
    assert (row["backend"], row["target"], row["rung_order"]) == (FINGERPRINT, "max_loss=0.05", 4)


async def test_a_file_of_an_earlier_version_is_written_on(path: Path, observer: RecordingObserver) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TABLE decisions (decision_id TEXT PRIMARY KEY, decided_at TEXT NOT NULL, tenant TEXT NOT NULL,"
            " rung TEXT NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL, model_version TEXT NOT NULL,"
            " propensity REAL NOT NULL, score TEXT, finish TEXT, thinking_tokens INTEGER, answer_tokens INTEGER,"
            " correct REAL, label_source TEXT, reported_at TEXT) WITHOUT ROWID"
        )
        db.execute("INSERT INTO decisions VALUES ('old', '2026', 't', '64', 's', 'r', 'v', 1, '', '', 1, 2, 1, '', '')")
        db.commit()
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    assert await log.report(outcome("old", 0.0))
    await log.close()
    assert set(rows(path)) == {"old", "a-decision"}


async def test_a_log_in_use_can_be_read(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    await log.report(outcome())
    assert [row["correct"] for row in read_rows(path)] == [1.0]
    await log.close()
    with pytest.raises(OutcomeLogError, match="nowhere"):
        list(read_rows(path.with_name("nowhere")))


async def test_a_log_makes_the_folders_that_it_needs(tmp_path: Path, observer: RecordingObserver) -> None:
    path = tmp_path / "a" / "b" / "outcomes.sqlite"
    for _ in range(2):
        await SqliteOutcomes(path, observer).close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name, length(value) FROM secrets").fetchall() == [("prompts", 32)]
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        kinds = {name: kind for _, name, kind, *_ in db.execute("PRAGMA table_info(decisions)")}
    assert (kinds["decision_id"], kinds["thinking_tokens"], kinds["correct"]) == ("TEXT", "INTEGER", "REAL")


async def test_a_log_is_failing_until_it_can_be_written_again(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    assert log.failing is False
    break_(path)
    log.record(request_of(), decision_of(), None)
    await until(lambda: log.failing)
    assert log.failing is True
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("ALTER TABLE elsewhere RENAME TO decisions")
    await until(lambda: not log.failing)
    await log.close()
    assert set(rows(path)) == {"a-decision"}


@pytest.mark.parametrize(("tenant", "attached"), [(None, True), (TENANT, True), ("another", False)])
async def test_a_tenant_reports_on_its_own_decisions_alone(
    path: Path, observer: RecordingObserver, tenant: str | None, attached: bool
) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    assert await log.report(replace(outcome(), tenant=tenant)) is attached
    assert (rows(path)["a-decision"]["correct"] == 1.0) is attached
    assert await log.find("no-such") is None
    found = await log.find("a-decision")
    assert found is not None and (found[0], found[1].id, found[2]) == (TENANT, "a-decision", None)
    await log.close()


async def test_rows_are_read_in_the_order_of_the_decisions(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    for id_ in ("c", "a", "b"):
        log.record(request_of(), decision_of(id_), None)
        await asyncio.sleep(0.002)
    await log.close()
    assert [row["decision_id"] for row in read_rows(path)] == ["c", "a", "b"]


@pytest.mark.parametrize("entry", UNWRITABLE, ids=lambda entry: entry[0])
async def test_a_row_that_cannot_be_written_costs_itself_alone(
    path: Path, observer: RecordingObserver, entry: Entry
) -> None:
    log = SqliteOutcomes(path, observer)
    await recorded_among_others(log, entry)
    await log.close()
    assert set(rows(path)) == {"a", "b", "c", "d"}
    assert [(lost.cause, lost.records) for lost in observer.of(RecordsLost)] == [("unwritable", 1)]


async def test_a_report_waits_for_a_locked_file_no_longer_than_it_must(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer, report_seconds=0.3)
    log.record(request_of(), decision_of(), None)
    assert await log.report(outcome())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for ask in (lambda: log.report(outcome(correct=0.0)), lambda: log.find("a-decision"), log.check):
            async with asyncio.timeout(4):  # less than SQLite itself waits
                with pytest.raises(OutcomeLogHangs, match="locked"):
                    await ask()
        other.execute("ROLLBACK")
    await log.close()


def delete(path: Path) -> None:
    path.unlink()


def delete_all(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()


def delete_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_an_older_one(path: Path) -> None:
    with closing(sqlite3.connect(path.with_name("older"))) as db:
        db.execute("CREATE TABLE decisions (decision_id TEXT PRIMARY KEY)")
        db.commit()
    path.with_name("older").replace(path)


AWAY = [delete, delete_all, delete_folder, move, empty, replace_by_an_older_one]


@pytest.mark.parametrize("away", AWAY)
async def test_a_file_that_goes_away_is_noticed_and_what_is_acknowledged_afterwards_is_kept(
    path: Path, observer: RecordingObserver, away: Callable[[Path], None]
) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of("before"), None)
    assert await log.report(outcome("before"))
    seen = log.identity()
    away(path)
    assert log.identity() != seen
    log.record(request_of(), decision_of("after"), None)
    with pytest.raises(OutcomeLogError):  # that it was away is told, once
        await log.report(outcome("after"))
    assert observer.of(Degraded)
    assert await log.report(outcome("after"))
    assert not await log.report(outcome("before")), "it is not acknowledged that something was kept that is gone"
    assert rows(path)["after"]["correct"] == 1.0
    assert not observer.of(RecordsLost)
    await log.close()
    assert set(rows(path)) == {"after"}


@pytest.mark.parametrize("away", AWAY)
async def test_workers_whose_file_goes_away_go_on_in_one_new_file(
    path: Path, observer: RecordingObserver, away: Callable[[Path], None]
) -> None:
    logs = [SqliteOutcomes(path, observer) for _ in range(3)]
    for number, log in enumerate(logs):
        log.record(request_of(), decision_of(f"before {number}"), None)
        assert await log.report(outcome(f"before {number}"))
    away(path)
    for name in ("one", "two"):
        for number, log in enumerate(logs):
            log.record(request_of(), decision_of(f"{name} {number}"), None)
    for log in logs:
        with suppress(OutcomeLogError):  # the writer may have met it already
            await log.check()
        await log.check()
    for name in ("one", "two"):
        assert all([await log.report(outcome(f"{name} {number}")) for number, log in enumerate(logs)])
    for log in logs:
        await log.close()
    assert set(rows(path)) == {f"{name} {number}" for name in ("one", "two") for number in range(3)}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_file_that_cannot_be_opened_anew_yet_is_tried_again(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    delete_all(path)
    path.mkdir()  # noqa: ASYNC240  nobody waits for this event loop
    log.record(request_of(), decision_of(), None)
    for _ in range(2):
        with pytest.raises(OutcomeLogError, match="regular file"):
            await log.check()
    path.rmdir()  # noqa: ASYNC240
    with pytest.raises(OutcomeLogError, match="deleted or replaced"):
        await log.check()
    await log.close()
    assert set(rows(path)) == {"a-decision"}
    assert not observer.of(RecordsLost)


@pytest.fixture
def permissive() -> Iterator[None]:
    """A umask that takes no permission away."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


@pytest.mark.usefixtures("permissive")
async def test_nobody_else_can_read_the_log(path: Path, observer: RecordingObserver) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    await log.report(outcome())
    assert modes(path.parent) == dict.fromkeys([path.name, f"{path.name}-wal", f"{path.name}-shm"], 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    delete(path)
    with pytest.raises(OutcomeLogError):
        await log.check()
    assert set(modes(path.parent).values()) == {0o600}
    await log.close()


@pytest.mark.usefixtures("permissive")
async def test_a_log_that_others_could_read_is_tightened(path: Path, observer: RecordingObserver) -> None:
    """Also what SQLite keeps beside it, as a process that was killed leaves it."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE other (a)")
        db.commit()
        assert modes(path.parent)[f"{path.name}-wal"] == 0o644
        log = SqliteOutcomes(path, observer)
        assert set(modes(path.parent).values()) == {0o600}
        await log.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("score", "nonsense"),
        ("score", "[" * 100_000),
        ("score", "[1]"),
        ("ladder", "7"),
        ("source", "nobody"),
        ("target", "max_loss=much"),
        ("rung_order", "first"),
        ("certificate", '{"alpha": 1}'),
        ("propensities", "1"),
        ("messages", "[1, 2]"),
        ("messages", '[{"role": "nobody", "content": ""}]'),
    ],
)
async def test_a_row_that_somebody_spoilt_is_an_error_of_the_log(
    path: Path, observer: RecordingObserver, column: str, value: str
) -> None:
    log = SqliteOutcomes(path, observer)
    log.record(request_of(), decision_of(), None)
    assert await log.report(outcome())
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE decisions SET {column} = ?", (value,))
        db.commit()
    with pytest.raises(OutcomeLogError, match="cannot be read"):
        await log.find("a-decision")
    assert await log.report(outcome())
    await log.close()


async def test_a_folder_that_another_process_has_locked_is_a_typed_error_in_time(
    path: Path, observer: RecordingObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent), monkeypatch.context() as patch:
        clock = Clock()
        patch.setattr("time.monotonic", clock)
        patch.setattr("time.sleep", clock.pass_by)
        with pytest.raises(OutcomeLogError, match="another process has held its lock for 5 s"):
            SqliteOutcomes(path, observer)
    await SqliteOutcomes(path, observer).close()
