"""A bundle is tried in another process, which cannot take this one along."""

import asyncio
import json
import os
import resource
import sys
from pathlib import Path

import onnx
import pytest

from router.bundle.manifest import MANIFEST, TOKENIZER, digest, load
from router.errors import ArtifactError
from router.scoring.trial import require_bounded
from tests.conftest import MODELS, another_bundle
from tests.support.fakes import until
from tests.support.hostile_graphs import digits, endless, greedy, hostile, model_of
from tests.support.processes import children

SHIPPED = MODELS / "pocket-router"


def environment(child: int) -> bytes:
    return Path(f"/proc/{child}/environ").read_bytes()


async def refused(directory: Path, said: str, seconds: int | None = None) -> None:
    before = children()
    with pytest.raises(ArtifactError, match=said) as caught:
        await require_bounded(directory, load(directory), seconds)
    assert len(str(caught.value).splitlines()) == 1
    assert children() <= before


async def test_a_good_bundle_passes() -> None:
    await require_bounded(SHIPPED, load(SHIPPED))


async def test_a_graph_of_a_test_passes(tmp_path: Path) -> None:
    good = hostile(tmp_path / "good", model_of([*digits(), onnx.helper.make_node("Identity", ["digits"], ["row"])]))
    await require_bounded(good, load(good))


async def test_a_graph_without_an_end_is_refused_in_time(tmp_path: Path) -> None:
    await refused(hostile(tmp_path / "endless", endless()), "did not end within 2 s", seconds=2)


async def test_a_graph_that_takes_all_memory_is_refused(tmp_path: Path) -> None:
    await refused(hostile(tmp_path / "greedy", greedy()), "alloc|memory|ended a process")


async def test_a_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    await refused(hostile(tmp_path / "none", b""), "model.onnx")


async def test_operators_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    own = onnx.helper.make_node("Own", ["digits"], ["row"], domain="com.example")
    model = model_of([*digits(), own])
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    await refused(hostile(tmp_path / "own", model), r"model\.onnx: .*Own")


async def test_a_tokenizer_that_is_none_is_refused(tmp_path: Path) -> None:
    bundle = another_bundle(tmp_path / "bundle", "x")
    (bundle / TOKENIZER).write_text("{}")
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][TOKENIZER] = digest(bundle / TOKENIZER)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    await refused(bundle, TOKENIZER)


async def test_a_bundle_that_was_replaced_meanwhile_is_refused(tmp_path: Path) -> None:
    before = load(another_bundle(tmp_path / "bundle", "a"))
    (tmp_path / "bundle").rename(tmp_path / "old")
    another_bundle(tmp_path / "bundle", "b")
    with pytest.raises(ArtifactError, match="changed while it was loaded"):
        await require_bounded(tmp_path / "bundle", before)


async def test_a_trial_ends_with_the_task_that_waits_for_it(tmp_path: Path) -> None:
    before, bundle = children(), hostile(tmp_path / "endless", endless())
    task = asyncio.create_task(require_bounded(bundle, load(bundle)))
    await until(lambda: children() - before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() <= before


async def test_the_other_process_sees_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDGET_ROUTER_CACHE_SECRET", "s3cret")
    before, bundle = children(), hostile(tmp_path / "endless", endless())
    task = asyncio.create_task(require_bounded(bundle, load(bundle)))
    # Right after its start it still is a copy of this one.
    await until(lambda: any(b"PYTHONPATH=" in environment(child) for child in children() - before))
    seen = [environment(child) for child in children() - before]
    task.cancel()
    await asyncio.wait([task])
    assert seen and not any(b"s3cret" in one for one in seen)
    assert os.environ["BUDGET_ROUTER_CACHE_SECRET"] == "s3cret"


async def test_where_no_process_can_be_started_the_bundle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load(SHIPPED)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ArtifactError, match="no process can be started for its trial: No such file"):
        await require_bounded(SHIPPED, bundle)


async def test_where_no_descriptor_is_left_the_bundle_is_refused() -> None:
    bundle, (soft, hard) = load(SHIPPED), resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
    try:
        with pytest.raises(ArtifactError, match="no process can be started for its trial: Too many open files"):
            await require_bounded(SHIPPED, bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken[0])
