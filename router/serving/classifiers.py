"""Classifiers: what runs the graphs of bundles, in this process or on a server.

The client of Triton is imported where it is chosen: the default start need not pay for it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from router.bundle import manifest, unlearned
from router.bundle.manifest import Bundle
from router.domain import Prompt, Score
from router.errors import ClassifierError
from router.ports import Classifier
from router.routing.hot_swap import Trial
from router.scoring.batching import Batching
from router.scoring.onnx import Device, OnnxClassifier
from router.scoring.trial import require_bounded
from router.serving import engines
from router.settings import EMBEDDED_BUNDLE, Served, Settings

if TYPE_CHECKING:
    from router.scoring.kserve import Triton
    from router.scoring.triton import TritonClassifier


class NoClassifier:
    """Scores nothing: what stands in for a bundle decides nothing."""

    async def score(self, prompts: Sequence[Prompt], owner: bytes = b"") -> list[Score]:
        """Raises ClassifierError."""
        raise ClassifierError(f"no bundle: {manifest.UNLEARNED}")


def classifier(bundle: Bundle, device: Device, server: "Triton | None") -> Classifier:
    """A bundle's classifier, which scores in the event loop or in batches in a thread.

    Raises:
        ArtifactError, SettingsError: the graph cannot run there.
    """
    if bundle.version == unlearned.VERSION:
        return NoClassifier()
    scoring = graph(bundle, device, server)
    structlog.get_logger().info("classifier", profile=bundle.manifest.text_encoder, runs_on=scoring.provider)
    # Static vectors are scored in the event loop: handing them to a thread would take longer than the run.
    if isinstance(scoring, OnnxClassifier) and bundle.manifest.text_encoder != "encoder":
        return scoring
    return Batching(scoring.scored)


def graph(bundle: Bundle, device: Device, server: "Triton | None") -> "OnnxClassifier | TritonClassifier":
    """The runner of a bundle's graph, verified. Raises ArtifactError, SettingsError."""
    if server is None:
        return OnnxClassifier(bundle, device)
    from router.scoring.triton import TritonClassifier

    return TritonClassifier(bundle, server)


def trial_of(server: "Triton | None") -> Trial:
    """The trial of bundles before their graphs run in this process. Raises ArtifactError when it is called."""

    async def trial(directory: Path, bundle: Bundle) -> None:
        # The embedded bundle is a part of this program, and a server's graph does not run here.
        if server is None and directory != EMBEDDED_BUNDLE:
            await require_bounded(directory, bundle)

    return trial


def triton(settings: Settings, served: Served, stack: AsyncExitStack) -> "Triton | None":
    """A client of the server that runs the first model's graph; None where graphs run in this process."""
    # TRITON_MODEL names one graph on the server, which is the first model's; another bundle runs in this process.
    if not settings.triton_url or served.artifact != settings.artifact:
        return None
    from router.scoring.kserve import Triton

    server = Triton(settings.triton_url, settings.triton_model)
    stack.callback(server.close)
    return server


async def ready(server: "Triton | None", patience: float) -> "Triton | None":
    """The same server once it has its model ready. Raises ClassifierError after `patience` seconds."""
    if server is not None:
        attempt = partial(asyncio.to_thread, server.versions)  # this client blocks
        await engines.until_up(attempt, ClassifierError, patience, {"classifier": server.name})
    return server
