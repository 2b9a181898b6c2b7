"""Another bundle for a running service: verified and warmed beside the old one, then swapped between two requests."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from router.bundle import registry
from router.bundle.manifest import MANIFEST, Bundle, load
from router.domain import MaxLoss, QualityTarget
from router.errors import ArtifactError
from router.events import Degraded, Swapped
from router.ports import Observer
from router.routing.router import BudgetRouter
from router.routing.served_model import ServedModel
from router.routing.shadow import Shadow

DEFAULT_TARGET = MaxLoss(0.02)
SHADOW_SECONDS = 600.0
"""A shadow ends after that, however few prompts have come."""

FOLLOW_SECONDS = 1.0
"""How often is looked whether another bundle is named."""


class HotSwap:
    """Keeps one served model on the bundle that `path` names.

    Args:
        path: a bundle, or a registry of bundles.
        shadow: prompts that are scored by both bundles before a swap; `target` is what rungs are chosen for meanwhile.
        profile_of: the same profile with another bundle; loads and verifies its graph, so it takes a moment.
    """

    def __init__(
        self,
        path: Path,
        model: str,
        profile_of: Callable[[Bundle], ServedModel],
        router: BudgetRouter,
        observer: Observer,
        shadow: int = 0,
        target: QualityTarget = DEFAULT_TARGET,
    ) -> None:
        self._path = path
        self._model = model
        self._profile_of = profile_of
        self._router = router
        self._observer = observer
        self._shadow = shadow
        self._target = target
        self._seen = self._named()
        self._one = asyncio.Lock()

    async def promote(self, directory: Path) -> str:
        """Make a bundle the registry's current one and serve it; returns its digest. Raises ArtifactError."""
        bundle = await asyncio.to_thread(load, directory)
        self._acceptable(bundle)
        await asyncio.to_thread(self._profile_of, bundle)  # what can not be served is not named
        await asyncio.to_thread(registry.promote, self._path, directory)
        return await self.swap()

    async def rollback(self) -> str:
        """Serve the bundle before the current one; returns its digest. Raises ArtifactError."""
        await asyncio.to_thread(registry.rollback, self._path)
        return await self.swap()

    async def follow(self) -> None:
        """Swap whenever another bundle is named, by whomever; what is refused is observed. Runs until cancelled."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            named = self._named()
            if named != self._seen:
                self._seen = named
                try:
                    await self.swap()
                except ArtifactError as error:
                    self._observer(Degraded("artifact", str(error)))

    async def swap(self) -> str:
        """Serve what the path names now; returns its digest. The old one goes on where this raises ArtifactError."""
        async with self._one:
            running = self._router.served_model(self._model)
            bundle = await asyncio.to_thread(lambda: load(registry.locate(self._path)))
            if bundle.version != running.bundle.version:
                self._acceptable(bundle)
                candidate = await asyncio.to_thread(self._profile_of, bundle)
                if self._shadow:
                    await self._shadowed(running, candidate)
                self._router.swap(candidate)
                self._observer(Swapped(self._model, running.bundle.version, bundle.version))
            return bundle.version

    async def _shadowed(self, running: ServedModel, candidate: ServedModel) -> None:
        """Score with both for a while, serve the old one. Raises ArtifactError where the candidate fails."""
        shadow = Shadow(running, candidate, self._shadow, self._target)
        self._router.swap(replace(running, scorer=running.scorer.classified_by(shadow)))
        try:
            async with asyncio.timeout(SHADOW_SECONDS):
                await shadow.done.wait()
        except TimeoutError:
            pass  # too little traffic to wait for
        finally:
            self._router.swap(running)
        result = shadow.result()
        self._observer(result)
        if result.failed:
            raise ArtifactError(
                f"it failed on {result.failed} of {result.prompts + result.failed} prompts in the shadow"
            )

    def _acceptable(self, bundle: Bundle) -> None:
        """Raises ArtifactError where a bundle is not for what is served."""
        running = self._router.served_model(self._model)
        if bundle.manifest.ladder != running.policy.ladder:
            rungs = ", ".join(rung.name for rung in bundle.manifest.ladder.rungs)
            raise ArtifactError(f"its ladder ({rungs}) is not the one that is served; restart to change it")
        fits = running.bundle.manifest.backend_fingerprint == running.fingerprint
        if fits and bundle.manifest.backend_fingerprint != running.fingerprint:
            raise ArtifactError(f"it is about {bundle.manifest.backend_fingerprint}, served is {running.fingerprint}")

    def _named(self) -> tuple[str, int]:
        """Changes when another bundle is named, or the one that is named is replaced."""
        try:
            manifest = registry.locate(self._path) / MANIFEST
            return str(manifest), manifest.stat().st_mtime_ns
        except (ArtifactError, OSError) as error:
            return str(error), 0
