"""A copy of the shipped bundle that is about a running engine: in front of it the shipped one decides nothing."""

import json
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.harness import BUNDLE
from router import settings
from router.bundle.manifest import MANIFEST
from router.errors import BackendUnavailable
from router.serving import engines

PATIENCE = 30.0
"""Seconds that the engine has to come up."""


async def bundle_about(url: str, model: str, directory: Path) -> Path:
    """Write the copy for a vLLM at `url` to a new directory, and return it. Raises BackendError, SettingsError."""
    chosen = settings.load(backend="vllm", backend_url=url, backend_model=model)
    async with AsyncExitStack() as stack:
        (replica,) = engines.replicas(chosen, chosen.served[0], stack)
        fingerprint = await engines.until_up(replica.backend.prove, BackendUnavailable, PATIENCE, {"backend": url})
    shutil.copytree(BUNDLE, directory)
    manifest = json.loads((directory / MANIFEST).read_text()) | {"backend_fingerprint": fingerprint}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return directory
