"""Served models: an engine that is proved to hold budgets, and a bundle that scores for it.

The clients of HTTP and Triton are imported where they are chosen: the default start need not pay for them.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from router.backends.pocket import PocketBackend
from router.bundle import manifest, refuted, registry, unlearned
from router.bundle.manifest import Bundle
from router.domain import DEFAULT_RUNG, BudgetLadder, MaxLoss, Prompt, ReasoningBudget, Score
from router.errors import ClassifierError
from router.outcomes.e_process import Ledger
from router.ports import Classifier, Observer, ScoreCache
from router.routing.hot_swap import Trial
from router.routing.policy import LatencyProfile, Policy
from router.routing.router import REFUTED, SUSPENDED
from router.routing.served_model import ServedModel
from router.scoring.batching import Batching
from router.scoring.cache_key import ScoreKeys
from router.scoring.lookahead import OnnxLookahead
from router.scoring.onnx import Device, OnnxClassifier
from router.scoring.scorer import Scorer
from router.scoring.trial import require_bounded
from router.serving import default_target, engines
from router.serving.parts import Model
from router.settings import EMBEDDED_BUNDLE, Served, Settings

if TYPE_CHECKING:
    from router.backends.replicas import Replicas
    from router.scoring.kserve import Triton
    from router.scoring.triton import TritonClassifier


async def model(
    settings: Settings, served: Served, cache: ScoreCache, ledger: Ledger, observer: Observer, stack: AsyncExitStack
) -> Model:
    """A served model. Raises ArtifactError, BackendError, ClassifierError, SettingsError."""
    # Before any wait for an engine: a broken bundle must be an error at once, and not after minutes.
    registry.sweep(served.artifact)
    client = triton(settings, served, stack)
    trial = trial_of(client)
    if unlearned_yet(settings, served):
        bundle = unlearned.bundle_of(learned_ladder(settings))
    else:
        directory = registry.locate(served.artifact)
        bundle = manifest.load(directory)
        await trial(directory, bundle)
    server = await ready(client, settings.backend_wait)
    backend, fingerprint, speed = await engines.served_backend(settings, served, observer, stack)
    latency = engines.latency_profile(settings, speed)
    secret = settings.cache_secret.get_secret_value().encode()
    make = partial(classifier, device=settings.classifier_device, server=server)
    target = MaxLoss(settings.max_loss)
    with_bundle = _WithBundle(
        served.model,
        served.artifact,
        backend,
        fingerprint,
        latency,
        secret,
        make,
        cache,
        ledger,
        observer,
        target,
        settings.probe_ahead,
    )
    learned = learned_ladder(settings) if learns(settings, served) else None
    return Model(served.artifact, with_bundle(bundle), with_bundle, trial, settings.shadow, learned)


def learns(settings: Settings, served: Served) -> bool:
    """True for the model that learns."""
    return settings.learn != "off" and served.artifact == settings.registry


def unlearned_yet(settings: Settings, served: Served) -> bool:
    """True for a model that learns, and of which nothing is learned yet."""
    return learns(settings, served) and registry.is_empty(served.artifact)


def learned_ladder(settings: Settings) -> BudgetLadder:
    """The rungs to learn about: those of the settings, and above them what the engine does by itself."""
    capped = (ReasoningBudget(str(cap), cap) for cap in settings.learn_caps)
    return BudgetLadder((*capped, ReasoningBudget(DEFAULT_RUNG, None)))


class NoClassifier:
    """Scores nothing: what stands in for a bundle decides nothing."""

    async def score(self, prompts: Sequence[Prompt], owner: bytes = b"") -> list[Score]:
        """Raises ClassifierError."""
        raise ClassifierError(f"no bundle: {manifest.UNLEARNED}")


@dataclass(frozen=True)
class _WithBundle:
    """Makes a served model of a bundle; everything else stays as it is when the bundle is swapped."""

    model: str
    artifact: Path
    backend: "PocketBackend | Replicas"
    fingerprint: str
    latency: LatencyProfile
    secret: bytes
    classifier: Callable[[Bundle], Classifier]
    cache: ScoreCache
    ledger: Ledger
    observer: Observer
    target: MaxLoss
    ahead: bool

    def __call__(self, bundle: Bundle) -> ServedModel:
        """The served model; blocks while the graph loads. Raises ArtifactError, SettingsError."""
        # The bundle's digest is part of the keys, so no score of the old bundle answers for the new one.
        keys = ScoreKeys(self.secret, bundle.version, bundle.manifest.ladder)
        scorer = Scorer(self.classifier(bundle), keys, self.cache, self.observer)
        about = bundle.manifest
        policy = Policy(
            about.ladder,
            about.certificates,
            self.latency,
            about.absolute,
            self._suspended(bundle.version),
            about.reference,
            about.per_prompt,
            about.stopping,
        )
        enforcement = self.backend.enforcement
        served = ServedModel(
            self.model,
            bundle.loaded,
            policy,
            scorer,
            self.backend,
            enforcement,
            self.fingerprint,
            OnnxLookahead(bundle) if bundle.lookahead else None,
            self.ahead,
        )
        if bundle.version == unlearned.VERSION:
            structlog.get_logger().info("no bundle yet", model=self.model, effect="the engine's own default is served")
        elif served.foreign:
            effect = "the engine's own default is served, without budgets"
            structlog.get_logger().warning("foreign bundle", model=self.model, why=served.foreign, effect=effect)
        elif why := default_target.uncovered(self.target, about):
            said = {
                "why": why,
                "effect": default_target.effect(self.target, about),
                "remedy": default_target.remedy(self.target, about),
            }
            structlog.get_logger().warning("default target not certified", model=self.model, **said)
        if about.stopping and not served.foreign and not served.climbs:
            effect = "the text of the prompt chooses the rung, and no rule stops within the thought"
            structlog.get_logger().warning("engine without steps", model=self.model, effect=effect)
        return served

    def _suspended(self, version: str) -> str:
        """Why the certificates of a bundle do not count; "" where they do. Raises ArtifactError."""
        if self.ledger.alarmed(version):
            return SUSPENDED
        return REFUTED if version in refuted.digests(self.artifact) else ""


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
