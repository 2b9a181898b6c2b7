"""Another bundle for a running service: verified and warmed beside the old one, then swapped between two requests."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from router import artifact, registry
from router.artifact import Bundle
from router.domain import Degraded, Swapped
from router.errors import ArtifactError
from router.ports import Observer
from router.routing import BudgetRouter, Profile

FOLLOW_SECONDS = 1.0
"""How often is looked whether another bundle is named."""


class HotSwap:
    """Keeps one served model on the bundle that `path` names.

    Args:
        path: a bundle, or a registry of bundles.
        profile_of: the same profile with another bundle; loads and verifies its graph, so it takes a moment.
    """

    def __init__(
        self, path: Path, model: str, profile_of: Callable[[Bundle], Profile], router: BudgetRouter, observer: Observer
    ) -> None:
        self._path = path
        self._model = model
        self._profile_of = profile_of
        self._router = router
        self._observer = observer
        self._seen = self._named()
        self._one = asyncio.Lock()

    async def promote(self, directory: Path) -> str:
        """Make a bundle the registry's current one and serve it; returns its digest. Raises ArtifactError."""
        await asyncio.to_thread(self._acceptable, artifact.load(directory))
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
            running = self._router.profile(self._model)
            bundle = await asyncio.to_thread(lambda: artifact.load(registry.locate(self._path)))
            if bundle.version != running.bundle.version:
                self._acceptable(bundle)
                self._router.swap(await asyncio.to_thread(self._profile_of, bundle))
                self._observer(Swapped(self._model, running.bundle.version, bundle.version))
            return bundle.version

    def _acceptable(self, bundle: Bundle) -> None:
        """Raises ArtifactError where a bundle is not for what is served."""
        running = self._router.profile(self._model)
        if bundle.manifest.ladder != running.policy.ladder:
            rungs = ", ".join(rung.name for rung in bundle.manifest.ladder.rungs)
            raise ArtifactError(f"its ladder ({rungs}) is not the one that is served; restart to change it")
        fits = running.bundle.manifest.backend_fingerprint == running.fingerprint
        if fits and bundle.manifest.backend_fingerprint != running.fingerprint:
            raise ArtifactError(f"it is about {bundle.manifest.backend_fingerprint}, served is {running.fingerprint}")

    def _named(self) -> tuple[str, int]:
        """Changes when another bundle is named, or the one that is named is replaced."""
        try:
            manifest = registry.locate(self._path) / artifact.MANIFEST
            return str(manifest), manifest.stat().st_mtime_ns
        except (ArtifactError, OSError) as error:
            return str(error), 0
