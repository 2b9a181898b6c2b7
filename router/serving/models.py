"""Served models: an engine that is proved to hold budgets, and a bundle that scores for it."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from router.backends.pocket import PocketBackend
from router.bundle import manifest, refuted, registry, unlearned
from router.bundle.manifest import Bundle
from router.domain import DEFAULT_RUNG, BudgetLadder, MaxLoss, ReasoningBudget
from router.outcomes.e_process import Ledger
from router.ports import Classifier, Observer, ScoreCache
from router.routing.policy import LatencyProfile, Policy
from router.routing.served_model import ServedModel
from router.routing.served_models import REFUTED, SUSPENDED
from router.scoring.cache_key import ScoreKeys
from router.scoring.lookahead import OnnxLookahead
from router.scoring.scorer import Scorer
from router.serving import default_target, engines
from router.serving.classifiers import classifier, ready, trial_of, triton
from router.serving.parts import Model
from router.settings import Served, Settings

if TYPE_CHECKING:
    from router.backends.replicas import Replicas


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
        _warn(served, self.target)
        return served

    def _suspended(self, version: str) -> str:
        """Why the certificates of a bundle do not count; "" where they do. Raises ArtifactError."""
        if self.ledger.alarmed(version):
            return SUSPENDED
        return REFUTED if version in refuted.digests(self.artifact) else ""


def _warn(served: ServedModel, target: MaxLoss) -> None:
    """Log where the model serves less than its bundle or its engine promises."""
    log, about = structlog.get_logger(), served.bundle.manifest
    if served.bundle.version == unlearned.VERSION:
        log.info("no bundle yet", model=served.model, effect="the engine's own default is served")
    elif served.foreign:
        effect = "the engine's own default is served, without budgets"
        log.warning("foreign bundle", model=served.model, why=served.foreign, effect=effect)
    elif why := default_target.uncovered(target, about):
        effect, remedy = default_target.effect(target, about), default_target.remedy(target, about)
        log.warning("default target not certified", model=served.model, why=why, effect=effect, remedy=remedy)
    if about.stopping and not served.foreign and not served.climbs:
        effect = "the text of the prompt chooses the rung, and no rule stops within the thought"
        log.warning("engine without steps", model=served.model, effect=effect)
