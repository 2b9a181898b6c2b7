"""`budget-router doctor`: checks everything that the service would run with."""

from contextlib import AsyncExitStack
from dataclasses import replace

from router.backends import canary
from router.backends.canary import Finding
from router.bundle import manifest, registry
from router.bundle.manifest import Manifest
from router.errors import BackendError, CacheError
from router.serving import assembly, models
from router.settings import Served, Settings


async def examine(settings: Settings) -> list[Finding]:
    """Check Redis, bundles and backends of the settings. Raises ArtifactError, BackendError, SettingsError."""
    findings = []
    async with AsyncExitStack() as stack:
        if settings.redis_url:
            findings.append(await _examine_redis(settings, stack))
        for served in settings.served:
            directory = registry.locate(served.artifact)
            bundle = manifest.load(directory)
            server = models.triton(settings, served, stack)
            await models.trial_of(server)(directory, bundle)
            runs_on = models.graph(bundle, settings.classifier_device, server).provider
            rungs = ", ".join(rung.name for rung in bundle.manifest.ladder.rungs)
            findings.append(Finding("model bundle", True, f"{bundle.version[:12]}, rungs {rungs}, {runs_on}"))
            findings += await _examine_backend(settings, served, bundle.manifest, stack)
    return findings


async def _examine_backend(settings: Settings, served: Served, about: Manifest, stack: AsyncExitStack) -> list[Finding]:
    """Check each enforcement strategy by itself, which one would serve, and whether the bundle is about this engine."""
    if served.backend == "pocket":
        backend, fingerprint = models.pocket_backend(settings, stack)
        return [*[finding async for finding in canary.examine(backend)], _examine_match(about, fingerprint)]
    findings = []
    for replica in models.engines(settings, served, stack):
        for strategy in replica.backend.strategies:
            name = strategy.enforcement.value
            # Not needed: one strategy that works is enough, and whether there is one is the finding below.
            findings += [
                replace(f, check=f"{name}: {f.check}", needed=False) async for f in canary.examine(strategy.alone)
            ]
        try:
            fingerprint = await replica.backend.prove()
            findings.append(Finding(f"enforcement of {replica.name}", True, fingerprint))
            findings.append(_examine_match(about, fingerprint))
        except BackendError as error:
            findings.append(Finding(f"enforcement of {replica.name}", False, str(error)))
    return findings


def _examine_match(about: Manifest, fingerprint: str) -> Finding:
    foreign = about.foreign_to(fingerprint)
    effect = f"{foreign}; until then the engine's own default is served, without budgets"
    return Finding("bundle is about this engine", not foreign, effect if foreign else fingerprint)


async def _examine_redis(settings: Settings, stack: AsyncExitStack) -> Finding:
    cache = assembly.redis_cache(settings, lambda event: None, stack)
    try:
        # No score has this key; that Redis answers is all that counts.
        await cache.get_many([b"doctor"])
    except CacheError as error:
        return Finding("Redis", False, str(error))
    return Finding("Redis", True, "answers")
