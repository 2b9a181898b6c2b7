"""Another bundle for a running service: verified and warmed beside the old one, then swapped between two requests."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from router.bundle import registry, unlearned
from router.bundle.manifest import MANIFEST, Bundle, load
from router.bundle.registry import Promotion
from router.domain import DEFAULT_MAX_LOSS, BudgetLadder, MaxLoss, QualityTarget
from router.errors import ArtifactError
from router.events import Swapped
from router.ports import Observer
from router.routing.router import BudgetRouter
from router.routing.served_model import ServedModel
from router.routing.shadow import Shadow

DEFAULT_TARGET = MaxLoss(DEFAULT_MAX_LOSS)
SHADOW_SECONDS = 600.0
"""Longest time in the shadow: with little traffic a candidate must not wait for ever."""

Trial = Callable[[Path, Bundle], Awaitable[None]]
"""Tries the bundle in a directory where it can do no harm. Raises ArtifactError."""


class HotSwap:
    """Keeps one served model on the bundle that `path` names.

    Args:
        path: a bundle, or a registry of bundles.
        with_bundle: makes the served model with another bundle; loads and verifies its graph, so it takes a moment.
        trial: comes before `with_bundle`, since a graph may never end.
        shadow: prompts that both bundles score before a swap.
        target: the target of the decisions that are compared meanwhile.
        shadow_seconds: the comparison ends after that, however few prompts have come.
        learned: the ladder that the service learns about, which a bundle may bring instead of the served one.
    """

    def __init__(
        self,
        path: Path,
        model: str,
        with_bundle: Callable[[Bundle], ServedModel],
        trial: Trial,
        router: BudgetRouter,
        observer: Observer,
        shadow: int = 0,
        target: QualityTarget = DEFAULT_TARGET,
        shadow_seconds: float = SHADOW_SECONDS,
        learned: BudgetLadder | None = None,
    ) -> None:
        self._path = path
        self._model = model
        self._with_bundle = with_bundle
        self._trial = trial
        self._router = router
        self._observer = observer
        self._shadow = shadow
        self._target = target
        self._shadow_seconds = shadow_seconds
        self._learned = learned
        self._one = asyncio.Lock()
        self._tried = ""
        """The version that was tried last."""

    async def promote(self, directory: Path) -> str:
        """Make a bundle the registry's current one and serve it; returns its digest. Raises ArtifactError."""
        promotion = Promotion(self._path, directory)
        try:
            # The copy is tried, since it is what will be served: the original may change meanwhile.
            bundle = await asyncio.to_thread(promotion.copy)
            await self._require_servable(promotion.directory, bundle)
            await asyncio.to_thread(promotion.publish)
        finally:
            # In a thread, too: it waits for one that a cancelled call has left at work. Shielded: while no thread is
            # free, the end of the call would cancel it, and leave the copy and its lock behind.
            await asyncio.shield(asyncio.to_thread(promotion.close))
        return await self.swap()

    async def rollback(self) -> str:
        """Serve the bundle before the current one; returns its digest. Raises ArtifactError, and nothing changes."""
        directory = await asyncio.to_thread(registry.previous, self._path)
        await self._require_servable(directory, await asyncio.to_thread(load, directory))
        await asyncio.to_thread(registry.rollback, self._path)
        return await self.swap()

    async def swap(self) -> str:
        """Serve the bundle that the path names; returns its digest. Raises ArtifactError, and the old one goes on."""
        async with self._one:
            running = self._router.served_model(self._model)
            if running.bundle.version == unlearned.VERSION and await asyncio.to_thread(registry.is_empty, self._path):
                return running.bundle.version  # nothing is learned yet
            directory = await asyncio.to_thread(registry.locate, self._path)
            bundle = await asyncio.to_thread(load, directory)
            if bundle.version != running.bundle.version:
                self._require_fit(bundle)
                if bundle.version != self._tried:
                    await self._trial(directory, bundle)
                candidate = await asyncio.to_thread(self._with_bundle, bundle)
                # Nothing is scored by a bundle that is about another engine, and rungs of two ladders do not compare.
                alike = not running.foreign and candidate.policy.ladder == running.policy.ladder
                if self._shadow and alike:
                    await self._compare(running, candidate)
                self._router.swap(candidate)
                self._observer(Swapped(self._model, running.bundle.version, bundle.version))
            return bundle.version

    def stamp(self) -> object:
        """Changes when the path names another bundle, or when the named bundle is replaced in place."""
        try:
            manifest = registry.locate(self._path) / MANIFEST
            status = manifest.stat()
            return str(manifest), status.st_mtime_ns, status.st_ino
        except (ArtifactError, OSError) as error:
            return str(error)

    async def _compare(self, running: ServedModel, candidate: ServedModel) -> None:
        """Score with both for a while, serve the old one. Raises ArtifactError where the candidate fails."""
        shadow = Shadow(running, candidate, self._shadow, self._target)
        self._router.swap(replace(running, scorer=replace(running.scorer, classifier=shadow)))
        try:
            async with asyncio.timeout(self._shadow_seconds):
                await shadow.done.wait()
        except TimeoutError:
            pass  # too little traffic to wait for
        finally:
            # Only the classifier goes back: an audit may have suspended the model's policy meanwhile.
            now = self._router.served_model(self._model)
            self._router.swap(replace(now, scorer=running.scorer))
        result = shadow.result()
        self._observer(result)
        if result.failed:
            compared = result.prompts + result.failed
            raise ArtifactError(f"it failed on {result.failed} of {compared} prompts in the shadow")

    async def _require_servable(self, directory: Path, bundle: Bundle) -> None:
        """Raises ArtifactError: the registry must never name a bundle that this service cannot serve."""
        self._require_fit(bundle)
        await self._trial(directory, bundle)
        await asyncio.to_thread(self._with_bundle, bundle)
        self._tried = bundle.version

    def _require_fit(self, bundle: Bundle) -> None:
        """Raises ArtifactError where a bundle is for another ladder or backend than the served ones."""
        running = self._router.served_model(self._model)
        if running.foreign:  # it decides nothing, so any bundle may take its place, with any ladder
            return
        if foreign := bundle.manifest.foreign_to(running.fingerprint):
            raise ArtifactError(foreign)
        if bundle.manifest.ladder not in (running.policy.ladder, self._learned):
            rungs = ", ".join(rung.name for rung in bundle.manifest.ladder.rungs)
            raise ArtifactError(f"its ladder ({rungs}) is not the one that is served; restart to change it")
