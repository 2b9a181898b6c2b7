"""Builds what remembers from settings: the score cache, quotas, pins and the outcome log. An exit stack closes it.

The client of Redis is imported where one is configured: the default start need not pay for it.
"""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from router.admission.memory_quotas import MemoryQuotas
from router.outcomes.rows import PromptHasher
from router.outcomes.sqlite import SqliteOutcomes
from router.ports import Observer
from router.routing.pins import MemoryPins
from router.scoring.memory_cache import MemoryCache
from router.serving.keeper import Work
from router.serving.parts import Cache, ServicePins, ServiceQuotas
from router.settings import PLAINTEXT_KEYS, Settings

if TYPE_CHECKING:
    from router.outcomes.redis import RedisOutcomes
    from router.scoring.redis_cache import RedisCache

OUTCOMES_TIMEOUT = 2.0
"""Seconds for a Redis to keep an outcome; callers of ReportOutcome wait for it."""


def score_cache(settings: Settings, observer: Observer, stack: AsyncExitStack, background: dict[str, Work]) -> Cache:
    """The score cache, shared where a Redis is configured."""
    near = MemoryCache(settings.cache_entries, settings.cache_bytes)
    if not settings.redis_url:
        return near
    from router.scoring.tiered_cache import TieredCache

    tiered = TieredCache(near, redis_cache(settings, observer, stack), observer)
    # `redis_cache` has pushed the close of the connection, which must come after the writes under way.
    stack.push_async_callback(tiered.drain)
    # A flush by another process reaches Redis alone; this one must notice it and drop its own level.
    background["watch flushes"] = tiered.watch
    return tiered


def redis_cache(settings: Settings, observer: Observer, stack: AsyncExitStack) -> "RedisCache":
    """The shared level of the score cache."""
    from router.redis.client import connect
    from router.scoring.redis_cache import RedisCache
    from router.scoring.seal import Seal

    redis = connect(settings.redis_url, settings.redis_timeout, plaintext=PLAINTEXT_KEYS in settings.public)
    seal = Seal(settings.cache_secret.get_secret_value().encode())
    cache = RedisCache(redis, seal, observer, settings.cache_ttl, settings.redis_timeout)
    stack.push_async_callback(cache.close)
    return cache


def quotas(settings: Settings, observer: Observer, stack: AsyncExitStack, background: dict[str, Work]) -> ServiceQuotas:
    """The tenants' quotas, shared where a Redis is configured."""
    near = MemoryQuotas()
    if not settings.redis_url:
        return near
    from router.admission.redis_quotas import RedisQuotas
    from router.redis.client import connect

    redis = connect(settings.redis_url, settings.redis_timeout, plaintext=PLAINTEXT_KEYS in settings.public)
    shared = RedisQuotas(redis, settings.redis_timeout, near, observer)
    stack.push_async_callback(shared.close)
    # Leases run out by themselves, so that a killed replica's streams count no longer; a long stream needs new ones.
    background["renew leases"] = shared.renew
    return shared


def pins(settings: Settings, observer: Observer, stack: AsyncExitStack) -> ServicePins:
    """What conversations keep, shared where a Redis is configured."""
    near = MemoryPins()
    if not settings.redis_url:
        return near
    from router.redis.client import connect
    from router.routing.pin_entries import PinEntries
    from router.routing.redis_pins import RedisPins

    redis = connect(settings.redis_url, settings.redis_timeout, plaintext=PLAINTEXT_KEYS in settings.public)
    entries = PinEntries(settings.cache_secret.get_secret_value().encode())
    shared = RedisPins(redis, entries, settings.redis_timeout, near, observer)
    stack.push_async_callback(shared.close)
    return shared


def outcome_log(settings: Settings, observer: Observer) -> "SqliteOutcomes | RedisOutcomes":
    """The outcome log. Raises OutcomeLogError, SettingsError."""
    # The log shares the cache's secret: both store hashes of prompts that replicas must be able to compare.
    secret = settings.cache_secret.get_secret_value().encode()
    if not settings.outcomes_url:
        return SqliteOutcomes(settings.outcomes, observer, texts=settings.log_prompts, secret=secret)
    from router.outcomes.redis import RedisOutcomes
    from router.redis.client import connect

    redis = connect(settings.outcomes_url, OUTCOMES_TIMEOUT, plaintext=PLAINTEXT_KEYS in settings.public)
    names = PromptHasher(secret, settings.log_prompts)
    return RedisOutcomes(redis, observer, names, settings.outcomes_length, OUTCOMES_TIMEOUT)
