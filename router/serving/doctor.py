"""`budget-router doctor`: checks everything that the service would run with."""

from contextlib import AsyncExitStack

from router.backends import canary
from router.backends.canary import Finding
from router.bundle import manifest, registry, unlearned
from router.bundle.manifest import Manifest
from router.bundle.offers import offer_of
from router.domain import MaxLoss
from router.errors import CacheError
from router.serving import classifiers, default_target, embedded, engine_checks, engines, models, stores
from router.serving.examination import ABOUT, Examination, Proved, Watch
from router.settings import POCKET, Served, Settings


async def examine(settings: Settings, kind_open: bool = False, watch: Watch = lambda finding: None) -> Examination:
    """Check Redis, engines and bundles of the settings.

    Args:
        kind_open: the settings do not say what kind of engine is at BACKEND_URL.
        watch: gets each finding as it comes: a slow engine takes minutes.

    Raises:
        ArtifactError, SettingsError: the settings cannot be used, or leave open what the engine does not say.
    """
    found = Examination(watch, [])
    async with AsyncExitStack() as stack:
        if settings.redis_url:
            await _examine_redis(settings, found, stack)
        found.served = await engine_checks.identified(settings, kind_open, found)
        found.proved = await _examine_model(settings, found.served, settings.served[0], found, stack)
        for served in settings.served[1:]:
            await _examine_model(settings, served, served, found, stack)
    return found


async def _examine_model(
    settings: Settings, known: Served | None, served: Served, found: Examination, stack: AsyncExitStack
) -> Proved | None:
    """Check a bundle, then its engine, unless that is not `known`. The engine as it would serve; None = not at all."""
    about = await _examine_bundle(settings, served, found, stack)
    if known is None:
        return None
    if known.backend == POCKET:
        found.add(Finding("engine", True, _embedded(settings, found)))
        proved = await _examine_pocket(settings, found, stack)
    else:
        proved = await engine_checks.examine_engine(settings, known, found, stack)
    first = next(iter(proved.values()), None)
    if first is not None:
        _examine_match(about, first.fingerprint, found)
        if served == settings.served[0] and not about.foreign_to(first.fingerprint):
            _examine_target(MaxLoss(settings.max_loss), about, found)
    if len({one.fingerprint for one in proved.values()}) > 1:
        seen = ", ".join(f"{name} is {one.fingerprint}" for name, one in proved.items())
        found.add(Finding("replicas are alike", False, seen))
    return first


def _embedded(settings: Settings, found: Examination) -> str:
    """That no engine is checked but the embedded model, and why."""
    if settings.backend_url or settings.served[0].backend != POCKET:
        return "the embedded pocket reasoner, as the settings say"
    hint = embedded.unloaded()
    found.unloaded = bool(hint)
    return "; ".join(filter(None, (f"the embedded pocket reasoner, {embedded.UNSET}", hint)))


async def _examine_redis(settings: Settings, found: Examination, stack: AsyncExitStack) -> None:
    cache = stores.redis_cache(settings, lambda event: None, stack)
    try:
        # No score has this key; that Redis answers is all that counts.
        await cache.get_many([b"doctor"])
    except CacheError as error:
        found.add(Finding("Redis", False, str(error)))
    else:
        found.add(Finding("Redis", True, "answers"))


async def _examine_bundle(settings: Settings, served: Served, found: Examination, stack: AsyncExitStack) -> Manifest:
    if models.unlearned_yet(settings, served):
        found.add(Finding("model bundle", True, f"none yet: the service learns one in {served.artifact}"))
        return unlearned.bundle_of(models.learned_ladder(settings)).manifest
    directory = registry.locate(served.artifact)
    bundle = manifest.load(directory)
    server = classifiers.triton(settings, served, stack)
    await classifiers.trial_of(server)(directory, bundle)
    runs_on = classifiers.graph(bundle, settings.classifier_device, server).provider
    rungs = ", ".join(rung.name for rung in bundle.manifest.ladder.rungs)
    found.add(Finding("model bundle", True, f"{bundle.version[:12]}, rungs {rungs}, {runs_on}"))
    return bundle.manifest


async def _examine_pocket(settings: Settings, found: Examination, stack: AsyncExitStack) -> dict[str, Proved]:
    backend, fingerprint = engines.pocket_backend(settings, stack)
    async for finding in canary.examine(backend):
        found.add(finding)
    found.add(engines.steps(""))
    return {POCKET: Proved(fingerprint, None, backend.climbs)}


def _examine_match(about: Manifest, fingerprint: str, found: Examination) -> None:
    if not about.backend_fingerprint:  # there is none yet, as the finding before says
        return
    foreign = about.foreign_to(fingerprint)
    effect = f"{foreign}; until then the engine's own default is served, without budgets"
    found.add(Finding(ABOUT, not foreign, effect if foreign else fingerprint))


def _examine_target(target: MaxLoss, about: Manifest, found: Examination) -> None:
    """Whether requests that name no target of their own save anything. Not needed: without, they are served safely."""
    if (offer := offer_of(about, target.value)) is not None:
        found.max_loss = offer.max_loss
    remedy = default_target.remedy(target, about)
    why = default_target.uncovered(target, about) or f"a loss of {target.value:g} is certified"
    seen = f"{why}: {default_target.effect(target, about)}; {remedy}" if remedy else why
    found.add(Finding("default target", not remedy, seen, needed=False))
