"""The outcome log: requests never wait for it; what cannot be written waits, bounded, and is written later."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import grpc
import pytest

from router._gen import budget_router_pb2 as pb
from router.outcomes.sqlite import read_rows
from tests.faults.conftest import Cell, Scene, scene
from tests.rpc.conftest import decide

DEGRADED = 'budget_router_degraded_total{dependency="outcomes"}'


def rename(path: Path, old: str, new: str) -> None:
    """Take the table away, or bring it back."""
    with closing(sqlite3.connect(path, timeout=30)) as db:
        db.execute(f"ALTER TABLE {old} RENAME TO {new}")
        db.commit()


@asynccontextmanager
async def logged(directory: Path) -> AsyncIterator[tuple[Scene, Path]]:
    async with scene(directory) as running:
        yield running, directory / "outcomes.sqlite"


async def reported(running: Scene) -> bool:
    """An outcome is kept."""
    decision = (await running.routing.Decide(decide())).decision.decision_id
    report = pb.ReportOutcomeRequest(decision_id=decision, correct=1, label_source=pb.LABEL_SOURCE_USER)
    await running.routing.ReportOutcome(report, timeout=30)
    return True


async def test_down(tmp_path: Path) -> None:
    async with logged(tmp_path) as (running, path):
        rename(path, "decisions", "elsewhere")
        cell = await running.under(Cell("outcome log", "down"), DEGRADED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reported(running)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, "whoever reports is told that it was not kept"
        rename(path, "elsewhere", "decisions")
        await running.recovered(cell, lambda: reported(running))
    assert len(list(read_rows(path))) >= cell.answered, "what was decided meanwhile is in the log"


@pytest.mark.parametrize(("fault", "seconds"), [("slow", 0.5), pytest.param("hang", 7.0, marks=pytest.mark.slow)])
async def test_locked(tmp_path: Path, fault: str, seconds: float) -> None:
    """Somebody else holds the file: for a moment, or longer than SQLite's own patience of 5 s."""
    async with logged(tmp_path) as (running, path):
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            counter = DEGRADED if fault == "hang" else "budget_router_decide_seconds_count"
            before = await running.scraped(counter)
            await asyncio.sleep(seconds)
            cell = await running.under(Cell("outcome log", fault), counter, before=before)
            other.execute("COMMIT")
        await running.recovered(cell, lambda: reported(running))
    assert len(list(read_rows(path))) >= cell.answered


async def test_locked_reports(tmp_path: Path) -> None:
    """Another process holds the file for long: decisions go on, and a reporter is refused in time."""
    async with logged(tmp_path) as (running, path):
        before = await running.scraped(DEGRADED)
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await reported(running)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, "and not DEADLINE_EXCEEDED"
            cell = await running.under(Cell("outcome log", "locked"), DEGRADED, before=before)
            other.execute("COMMIT")
        await running.recovered(cell, lambda: reported(running))
    assert len(list(read_rows(path))) >= cell.answered


async def test_deleted(tmp_path: Path) -> None:
    """Somebody deletes the file, once while nobody asks and once under load: the log goes on in a new one."""
    async with logged(tmp_path) as (running, path):
        await reported(running)
        before = await running.scraped(DEGRADED)
        path.unlink()
        assert await running.moves(DEGRADED, before), "noticed, though there is nothing to write"
        asking = asyncio.create_task(running.under(Cell("outcome log", "deleted"), DEGRADED, before=before))
        await asyncio.sleep(0.05)
        path.unlink()
        cell = await asking
        await running.recovered(cell, lambda: reported(running))
    assert any(row["correct"] == 1.0 for row in read_rows(path))


async def test_flapping(tmp_path: Path) -> None:
    async with logged(tmp_path) as (running, path):
        stop = asyncio.Event()

        async def flap() -> None:
            while not stop.is_set():  # not cancelled: a rename in its thread would go on
                await asyncio.to_thread(rename, path, "decisions", "elsewhere")
                await asyncio.sleep(0.03)
                await asyncio.to_thread(rename, path, "elsewhere", "decisions")
                await asyncio.sleep(0.03)

        flapping = asyncio.create_task(flap())
        await asyncio.sleep(0.02)
        cell = await running.under(Cell("outcome log", "flapping"), DEGRADED, requests=100)
        stop.set()
        await flapping
        await running.recovered(cell, lambda: reported(running))
    assert len(list(read_rows(path))) >= cell.answered


async def test_garbage(tmp_path: Path) -> None:
    """The file holds something else by that name."""
    async with logged(tmp_path) as (running, path):
        rename(path, "decisions", "elsewhere")
        with closing(sqlite3.connect(path, timeout=30)) as db:
            db.execute("CREATE TABLE decisions (nonsense BLOB)")
            db.commit()
        cell = await running.under(Cell("outcome log", "garbage"), DEGRADED)
        with closing(sqlite3.connect(path, timeout=30)) as db:
            db.execute("DROP TABLE decisions")
            db.commit()
        rename(path, "elsewhere", "decisions")
        await running.recovered(cell, lambda: reported(running))
    assert len(list(read_rows(path))) >= cell.answered
