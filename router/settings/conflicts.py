"""Settings that are right by themselves, and do not fit together."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from router.backends.urls import engine_url, proxy_url
from router.errors import SettingsError
from router.settings.engines import POCKET
from router.settings.group import PREFIX
from router.settings.whole import Settings

LISTEN = re.compile(r"(?:\[[^]\s]+]|[^][:/\s]*):(?P<port>[0-9]{1,5})")
HIGHEST_PORT = 65_535

STRICTEST_LEARNED = 0.005
"""The smallest loss that is tested while serving."""


def conflicts(settings: Settings, needed: Sequence[str]) -> Iterator[str]:
    """What does not fit together; each conflict begins with the name of a setting.

    Args:
        needed: settings that every engine but the embedded one needs.
    """
    yield from _of_engines(settings, needed)
    yield from _of_stores(settings)
    yield from _of_gateway(settings)
    yield from _of_learning(settings)
    yield from _of_tls(settings)
    yield from _of_addresses(settings)
    yield from _of_urls(settings)


def _of_engines(settings: Settings, needed: Sequence[str]) -> Iterator[str]:
    """The models served, and what runs a bundle's graph."""
    yield from _missing(settings, "backend", needed)
    yield from _missing(settings, "failover_backend", ("failover_url", "failover_model"))
    if settings.failover_backend and settings.failover_artifact is None:
        yield f"FAILOVER_ARTIFACT: needed with {PREFIX}FAILOVER_BACKEND"
    if len({served.model for served in settings.served}) < len(settings.served):
        yield f"FAILOVER_MODEL: must differ from {PREFIX}BACKEND_MODEL: callers name models"
    if settings.triton_url and settings.classifier_device != "auto":
        yield f"CLASSIFIER_DEVICE: must be auto with {PREFIX}TRITON_URL: the server chooses"


def _missing(settings: Settings, kind: str, needed: Sequence[str]) -> Iterator[str]:
    """An engine needs an address and the name of a model; the embedded one needs neither."""
    if (engine := getattr(settings, kind)) not in ("", POCKET):
        for name in needed:
            if not getattr(settings, name):
                yield f"{name.upper()}: needed with {PREFIX}{kind.upper()}={engine}"


def _of_stores(settings: Settings) -> Iterator[str]:
    """What several processes have in common."""
    secret, admin = settings.cache_secret.get_secret_value(), settings.admin_token.get_secret_value()
    if settings.outcomes_url and not secret:
        yield f"CACHE_SECRET: needed with {PREFIX}OUTCOMES_URL, the same for all replicas"
    if settings.redis_url and not secret:
        yield f"CACHE_SECRET: needed with {PREFIX}REDIS_URL, the same for all replicas"
    # Each worker would grant the whole quota of a tenant, and a flush would reach one worker's cache alone.
    if settings.workers > 1 and not settings.redis_url and (settings.tenants or admin):
        yield "REDIS_URL: needed for several workers with tenants or an admin service"


def _of_gateway(settings: Settings) -> Iterator[str]:
    """The engine behind a gateway holds budgets by itself."""
    if settings.envoy and settings.backend == POCKET:
        yield f"ENVOY: needs an engine behind the gateway: {PREFIX}BACKEND names none"
    if settings.envoy and settings.backend_enforcement == "two_phase":
        yield f"ENVOY: needs an engine that holds budgets by itself: {PREFIX}BACKEND_ENFORCEMENT must not be two_phase"


def _of_learning(settings: Settings) -> Iterator[str]:
    """Rungs to learn about, and the judge."""
    try:
        caps = settings.learn_caps
    except ValueError:
        caps = []
    if not caps or min(caps) < 0 or any(a >= b for a, b in pairwise(caps)):
        yield f"LEARN_LADDER: ascending numbers of tokens are expected, not {settings.learn_ladder!r}"
    if settings.learn_judge_url and not settings.learn_judge_model:
        yield f"LEARN_JUDGE_MODEL: needed with {PREFIX}LEARN_JUDGE_URL"
    if settings.learn != "off" and settings.max_loss < STRICTEST_LEARNED:
        yield f"MAX_LOSS: at least {STRICTEST_LEARNED:g} with {PREFIX}LEARN, which tests no stricter target"
    if settings.learn != "off" and settings.triton_url:
        yield f"LEARN: not with {PREFIX}TRITON_URL: the bundles that are learned run in this process"


def _of_tls(settings: Settings) -> Iterator[str]:
    files = {"TLS_CERTIFICATE": settings.tls_certificate, "TLS_KEY": settings.tls_key}
    missing = [name for name, path in files.items() if path is None]
    if len(missing) == 1:
        yield f"{missing[0]}: certificate and key are needed together"
    if missing and settings.tls_client_ca is not None:
        yield f"TLS_CERTIFICATE: needed with {PREFIX}TLS_CLIENT_CA"


def _of_addresses(settings: Settings) -> Iterator[str]:
    """Addresses to listen on are HOST:PORT."""
    for name in ("listen", "http_listen", "health_listen", "metrics_listen", "admin_listen"):
        found = LISTEN.fullmatch(address := getattr(settings, name))
        if address and (found is None or int(found["port"]) > HIGHEST_PORT):
            yield f"{name.upper()}: HOST:PORT is expected, not {address!r}"


def _of_urls(settings: Settings) -> Iterator[str]:
    """Addresses of engines, and of the proxy before them, that could not be used."""
    written = [
        ("BACKEND_URL", settings.backend_url, engine_url),
        ("FAILOVER_URL", settings.failover_url, engine_url),
        ("LEARN_JUDGE_URL", settings.learn_judge_url, engine_url),
        ("BACKEND_PROXY", settings.backend_proxy.get_secret_value(), proxy_url),
    ]
    for name, urls, read in written:
        try:
            for url in urls.split(",") if urls else ():
                read(url)
        except SettingsError as error:
            yield f"{name}: {error}"
