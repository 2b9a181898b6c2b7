"""A running service takes another bundle between two requests, or keeps the one it has."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from router.bundle import manifest, registry
from router.bundle.manifest import Bundle
from router.bundle.staging import Staging
from router.domain import BudgetLadder, Decision, DecisionSource, MaxLoss, ReasoningBudget
from router.errors import ArtifactError
from router.events import Degraded, Shadowed, Swapped
from router.routing.hot_swap import HotSwap
from router.routing.router import BudgetRouter
from router.routing.served_model import ServedModel
from router.routing.shadow import Shadow
from router.scoring.cache_key import ScoreKeys
from router.scoring.scorer import Scorer
from router.serving.follow import Followed, follow_file
from tests.conftest import MODELS, another_bundle
from tests.support.fakes import (
    MODEL,
    DictCache,
    FakeClassifier,
    RecordingObserver,
    policy_of,
    request_of,
    router_of,
    score_of,
    until,
)

SHIPPED = MODELS / "pocket-router"
FINGERPRINT = manifest.load(SHIPPED).manifest.backend_fingerprint


class Running:
    """A router of fakes on a registry, and what it is swapped by."""

    def __init__(
        self, path: Path, shadow: int = 0, shadow_seconds: float = 600, learned: BudgetLadder | None = None
    ) -> None:
        self.observer, cache = RecordingObserver(), DictCache()
        self.router: BudgetRouter = router_of(observer=self.observer, cache=cache)
        self.classifiers: dict[str, FakeClassifier] = {}
        bundle = manifest.load(registry.locate(path))
        first = self.router.served_model("")

        def of(bundle: Bundle) -> ServedModel:
            keys = ScoreKeys(b"secret", bundle.version, bundle.manifest.ladder)
            scorer = Scorer(self.classifiers.get(bundle.version, FakeClassifier()), keys, cache, self.observer)
            policy = policy_of(bundle.manifest.ladder)
            return replace(first, bundle=bundle, scorer=scorer, policy=policy, fingerprint=FINGERPRINT)

        self.router.swap(of(bundle))
        self.tried: list[str] = []
        self.hangs = False
        self.swap = HotSwap(
            path, MODEL, of, self.trial, self.router, self.observer, shadow, MaxLoss(0.05), shadow_seconds, learned
        )

    async def trial(self, directory: Path, bundle: Bundle) -> None:
        """Passes every bundle, or takes for ever."""
        assert manifest.load(directory).version == bundle.version
        self.tried.append(bundle.version)
        if self.hangs:
            await asyncio.Event().wait()

    @property
    def version(self) -> str:
        return self.router.served_model("").bundle.version


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A registry that serves the shipped bundle."""
    registry.promote(tmp_path / "models", SHIPPED)
    return tmp_path / "models"


@asynccontextmanager
async def following(running: Running) -> AsyncIterator[None]:
    followed = Followed("artifact", running.swap.stamp, running.swap.swap)
    task = asyncio.create_task(follow_file(followed, running.observer, 0.01))
    yield
    assert not task.done()
    task.cancel()


async def test_a_promotion_is_served_and_old_cache_entries_do_not_answer_for_it(models: Path, tmp_path: Path) -> None:
    running = Running(models)
    before = running.version
    await running.router.decide(request_of())
    assert (await running.router.decide(request_of())).source is DecisionSource.CACHE
    version = await running.swap.promote(another_bundle(tmp_path / "b", "b"))
    decision = await running.router.decide(request_of())
    assert (decision.source, decision.model_version) == (DecisionSource.CLASSIFIER, version)
    assert running.observer.of(Swapped) == [Swapped(MODEL, before, version)]
    assert await running.swap.rollback() == before
    assert (await running.router.decide(request_of())).source is DecisionSource.CACHE


async def test_replicas_follow_what_another_process_promotes(models: Path, tmp_path: Path) -> None:
    replicas = [Running(models) for _ in range(3)]
    async with AsyncExitStack() as stack:
        for replica in replicas:
            await stack.enter_async_context(following(replica))
        version = registry.promote(models, another_bundle(tmp_path / "b", "b"))
        await until(lambda: all(one.version == version for one in replicas))
        registry.rollback(models)
        await until(lambda: all(one.version != version for one in replicas))


async def test_a_bundle_that_is_replaced_in_place_is_followed(tmp_path: Path) -> None:
    running = Running(another_bundle(tmp_path / "bundle", "a"))
    before = running.version
    async with following(running):
        (tmp_path / "bundle").rename(tmp_path / "old")
        await until(lambda: running.observer.of(Degraded))
        assert running.version == before
        another_bundle(tmp_path / "bundle", "b")
        await until(lambda: running.version != before)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format_version": 1}, "bundle format 1"),
        ({"feature_version": "static-1"}, "features static-1"),
        ({"ladder": {"rungs": [{"name": "0", "tokens": 0}, {"name": "8", "tokens": 8}]}}, "its ladder"),
        ({"backend_fingerprint": "vllm-1/other/x/native"}, "the bundle is about vllm-1/other"),
        ({"files": {}}, "SHA-256"),
    ],
    ids=["older format", "other features", "other ladder", "other backend", "tampered"],
)
async def test_what_does_not_fit_is_refused_and_the_old_one_stays(
    models: Path, tmp_path: Path, changes: dict[str, object], why: str
) -> None:
    running = Running(models)
    before = running.version
    bad = another_bundle(tmp_path / "bad", "bad", **changes)
    with pytest.raises(ArtifactError, match=why):
        await running.swap.promote(bad)
    assert registry.history(models) == [before]
    async with following(running):
        (models / registry.VERSIONS / "bad").mkdir()
        for file in bad.iterdir():
            (models / registry.VERSIONS / "bad" / file.name).write_bytes(file.read_bytes())
        (models / registry.CURRENT).write_text(f'{{"promoted": ["{before}", "bad"]}}')
        await until(lambda: running.observer.of(Degraded))
    assert running.observer.of(Degraded)[0].dependency == "artifact"
    assert running.version == before
    assert (await running.router.decide(request_of())).choice


async def test_a_bundle_may_bring_the_ladder_that_the_service_learns_about(models: Path, tmp_path: Path) -> None:
    """The setting was changed beside a bundle. A shadow could not compare the rungs of both."""
    caps = (0, 64, 128, 512, 2_048, 8_192)
    learned = BudgetLadder(tuple(ReasoningBudget(str(n), n) for n in caps))
    running = Running(models, shadow=5, learned=learned)
    await running.swap.promote(another_bundle(tmp_path / "own", "own", ladder=asdict(learned)))
    assert (await running.router.decide(request_of())).ladder == learned


async def test_a_bundle_about_the_engine_ends_its_own_default_without_a_restart(tmp_path: Path) -> None:
    """Whatever its ladder is, and without a shadow: the bundle before it has scored nothing."""
    models = tmp_path / "models"
    registry.promote(models, another_bundle(tmp_path / "strange", "strange", backend_fingerprint="vllm-1/other/native"))
    running = Running(models, shadow=5)
    foreign = await running.router.decide(request_of())
    assert (foreign.source, foreign.rung.tokens) == (DecisionSource.ENGINE_DEFAULT, None)
    ladder = {"rungs": [{"name": str(n), "tokens": n} for n in (0, 64, 128, 512, 2_048, 8_192)]}
    version = await running.swap.promote(another_bundle(tmp_path / "own", "own", ladder=ladder))
    decision = await running.router.decide(request_of())
    assert (decision.source, decision.model_version) == (DecisionSource.CLASSIFIER, version)
    assert [rung.tokens for rung in decision.ladder.rungs] == [0, 64, 128, 512, 2_048, 8_192]
    assert running.router.served_model("").suspended == ""
    with pytest.raises(ArtifactError, match="the bundle is about vllm-1/other"):
        await running.swap.rollback()
    assert running.version == version, "a bundle about another engine does not come back by a swap"


async def test_requests_under_way_keep_what_they_began_with(models: Path, tmp_path: Path) -> None:
    running = Running(models)
    decisions: list[str] = []

    async def load() -> None:
        while True:
            decisions.append((await running.router.decide(request_of(f"{len(decisions)}"))).model_version)
            await asyncio.sleep(0.001)  # the thread that loads the bundle has its turns

    loading = [asyncio.create_task(load()) for _ in range(10)]
    before = running.version
    after = await running.swap.promote(another_bundle(tmp_path / "b", "b"))
    await asyncio.sleep(0.02)
    for task in loading:
        assert not task.done()
        task.cancel()
    assert set(decisions) == {before, after}
    assert decisions[-1] == after


async def test_a_candidate_is_shadowed_before_it_serves(models: Path, tmp_path: Path) -> None:
    running = Running(models, shadow=20)
    before = running.version
    candidate = another_bundle(tmp_path / "b", "b")
    version = manifest.load(candidate).version
    running.classifiers[version] = FakeClassifier(score_of(*[0.9] * 6))  # would always take the cheapest rung
    promoting = asyncio.create_task(running.swap.promote(candidate))
    decisions: list[Decision] = []
    while not promoting.done():
        decisions.append(await running.router.decide(request_of(f"prompt {len(decisions)}")))
        await asyncio.sleep(0.005)
    assert await promoting == running.version == version
    assert {d.model_version for d in decisions[:-1]} == {before}
    assert {d.rung.name for d in decisions[:-1]} == {"128"}, "the old one serves"
    [seen] = running.observer.of(Shadowed)
    assert (seen.version, seen.prompts, seen.failed, seen.agreement, seen.saved) == (version, 20, 0, 0.0, 1.0)


async def test_a_candidate_that_fails_in_the_shadow_does_not_serve(models: Path, tmp_path: Path) -> None:
    running = Running(models, shadow=5)
    before = running.version
    candidate = another_bundle(tmp_path / "b", "b")
    running.classifiers[manifest.load(candidate).version] = FakeClassifier(failing=True)
    promoting = asyncio.create_task(running.swap.promote(candidate))
    number = 0
    while not promoting.done():
        number += 1
        assert (await running.router.decide(request_of(f"prompt {number}"))).source is DecisionSource.CLASSIFIER
        await asyncio.sleep(0.005)
    with pytest.raises(ArtifactError, match="5 of 5 prompts"):
        await promoting
    assert running.version == before
    assert running.router.served_model("").scorer.classifier.__class__ is FakeClassifier


async def test_a_suspension_outlasts_the_shadow(models: Path, tmp_path: Path) -> None:
    running = Running(models, shadow=5)
    candidate = another_bundle(tmp_path / "b", "b")
    running.classifiers[manifest.load(candidate).version] = FakeClassifier(failing=True)
    served = running.router.served_model
    promoting = asyncio.create_task(running.swap.promote(candidate))
    await until(lambda: isinstance(served("").scorer.classifier, Shadow))
    running.router.suspend(MODEL, running.version)
    for number in range(5):
        await running.router.decide(request_of(f"prompt {number}"))
    with pytest.raises(ArtifactError, match="5 of 5 prompts"):
        await promoting
    assert served("").policy.suspended and isinstance(served("").scorer.classifier, FakeClassifier)


async def test_without_traffic_a_shadow_ends_by_itself(models: Path, tmp_path: Path) -> None:
    running = Running(models, shadow=5, shadow_seconds=0.05)
    version = await running.swap.promote(another_bundle(tmp_path / "b", "b"))
    assert running.version == version
    assert running.observer.of(Shadowed)[0].prompts == 0


async def test_a_bundle_is_tried_once_before_it_serves(models: Path, tmp_path: Path) -> None:
    running = Running(models)
    before = running.version
    version = await running.swap.promote(another_bundle(tmp_path / "b", "b"))
    assert running.tried == [version]
    await running.swap.rollback()
    assert running.tried == [version, before]


async def test_a_promotion_that_is_stopped_in_its_trial_leaves_nothing(models: Path, tmp_path: Path) -> None:
    running = Running(models)
    running.hangs = True
    promoting = asyncio.create_task(running.swap.promote(another_bundle(tmp_path / "b", "b")))
    await until(lambda: running.tried)
    promoting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await promoting
    assert registry.history(models) == [running.version]
    assert [path.name for path in (models / registry.VERSIONS).iterdir()] == [running.version]
    running.hangs = False
    assert await running.swap.promote(tmp_path / "b") == running.version


async def test_a_promotion_that_is_stopped_while_no_thread_is_free_leaves_nothing(models: Path, tmp_path: Path) -> None:
    running, may_end, loop = Running(models), threading.Event(), asyncio.get_running_loop()
    running.hangs = True
    loop.set_default_executor(ThreadPoolExecutor(1))
    promoting = asyncio.create_task(running.swap.promote(another_bundle(tmp_path / "b", "b")))
    await until(lambda: running.tried)
    busy = loop.run_in_executor(None, may_end.wait, 30)
    for _ in range(2):  # once in the trial, once while its copy waits to be removed
        promoting.cancel()
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await promoting
    may_end.set()
    await busy
    await until(lambda: [path.name for path in (models / registry.VERSIONS).iterdir()] == [running.version])


async def test_a_promotion_that_is_stopped_while_it_publishes_leaves_a_whole_bundle(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on, and the copy must not be removed under its hands."""
    running, renaming, may_end, renamed = Running(models), threading.Event(), threading.Event(), threading.Event()
    rename = Staging.rename

    def slowly(staging: Staging, target: Path) -> None:
        renaming.set()
        may_end.wait(30)
        rename(staging, target)
        renamed.set()

    monkeypatch.setattr(Staging, "rename", slowly)
    candidate = another_bundle(tmp_path / "b", "b")
    promoting = asyncio.create_task(running.swap.promote(candidate))
    await until(renaming.is_set)
    promoting.cancel()
    await asyncio.sleep(0.1)  # enough to remove everything
    assert [path.name for path in (models / registry.VERSIONS).iterdir() if path.name.startswith(".staged-")]
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await promoting
    assert renamed.is_set()
    assert await running.swap.swap() == manifest.load(candidate).version == registry.history(models)[-1]


async def test_a_rollback_to_what_cannot_be_served_changes_nothing(models: Path, tmp_path: Path) -> None:
    running = Running(models)
    before = running.version
    version = await running.swap.promote(another_bundle(tmp_path / "b", "b"))
    (models / registry.VERSIONS / before / "model.onnx").write_bytes(b"spoilt")
    with pytest.raises(ArtifactError, match="SHA-256"):
        await running.swap.rollback()
    assert running.version == version and registry.history(models) == [before, version]
