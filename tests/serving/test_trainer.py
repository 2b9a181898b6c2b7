"""The process that trains beside a service."""

import asyncio
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.serving import trainer
from router.serving.backoff import Backoff
from router.serving.trainer import arguments, kept_running, training
from router.settings import load
from training.cli.learn import learn


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that other processes do."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def lines(path: Path) -> list[str]:
    """Those of a file that may not be there yet."""
    return path.read_text().splitlines() if path.exists() else []


async def test_it_is_started_again_and_ended_with_the_service(tmp_path: Path) -> None:
    seen = tmp_path / "pids"
    once = f"test $(wc -l <{seen}) -gt 2 && exec sleep 600; exit 3"
    with capture_logs() as logs:
        async with kept_running(("/bin/sh", "-c", f"echo $$ >>{seen}; {once}"), Backoff(0.01, 0.02)):
            await until(lambda: len(lines(seen)) == 3)
    assert [one["reason"] for one in logs][:2] == ["exit code 3"] * 2
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines(seen)[-1]), 0)


async def test_one_that_does_not_heed_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "STOP_SECONDS", 0.05)
    seen = tmp_path / "pid"
    async with kept_running(("/bin/sh", "-c", f"trap '' TERM; echo $$ >{seen}; while true; do sleep 0.01; done")):
        await until(lambda: len(lines(seen)) == 1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines(seen)[0]), 0)


async def test_a_command_that_cannot_be_run_is_said(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with kept_running((str(tmp_path / "none"),), Backoff(0.01, 0.02)):
            await until(lambda: len(logs) >= 2)
    assert "No such file" in logs[0]["reason"]


async def test_without_the_extra_it_says_what_to_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "NEEDED", ("sys", "no_such_package"))
    with capture_logs() as logs:
        async with training(load(learn="act", learn_folder=tmp_path)):
            pass
    (said,) = logs
    assert said["missing"] == ["no_such_package"]
    assert f"budget-train learn --follow --folder {tmp_path} --registry {tmp_path}/registry" in said["remedy"]


async def test_the_folder_is_there_before_the_trainer_looks_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "learning"
    monkeypatch.setattr(trainer, "NEEDED", ())
    monkeypatch.setattr(trainer, "kept_running", lambda _: nullcontext())
    async with training(load(learn="observe", learn_folder=folder)):
        assert folder.is_dir()


async def test_a_service_that_learns_nothing_trains_nothing() -> None:
    with capture_logs() as logs:
        async with training(load()):
            pass
    assert not logs


def test_the_command_takes_its_arguments(tmp_path: Path) -> None:
    settings = load(learn="act", learn_folder=tmp_path, learn_judge_misses=0.1, max_loss=0.05, learn_tenant_share=0.3)
    name, *given = arguments(settings)
    parsed = learn.make_context(name, given).params
    assert name == "learn" and parsed["act"] and parsed["follow"] and parsed["folder"] == tmp_path
    assert (parsed["judge_misses"], parsed["max_loss"], parsed["tenant_share"]) == (0.1, 0.05, 0.3)
    assert learn.make_context(name, ["--folder", str(tmp_path)]).params["tenant_share"] == load().learn_tenant_share
    assert parsed["registry"] == tmp_path / "registry"
