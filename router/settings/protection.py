"""Addresses that other machines reach, and keys that go there, need protection."""

from collections.abc import Iterator

from router import addresses
from router.admission import tenants
from router.admission.tenants import Tenants
from router.errors import SettingsError
from router.settings.group import PREFIX
from router.settings.whole import Settings

OPEN = {"plaintext": "TLS", "no-keys": "keys", "metrics": "any credentials"}
"""The protection of addresses to listen on that each word of PUBLIC waives."""

PLAINTEXT_KEYS = "plaintext-keys"
"""The word of PUBLIC that lets keys and passwords of this service travel to other machines without TLS."""


def require_protection(settings: Settings) -> None:
    """Addresses that other machines reach need TLS and keys, except for what the operator names in PUBLIC.

    Raises:
        SettingsError: one would lack them, or the file of tenants is wrong.
    """
    needed: dict[str, set[str]] = {"listen": {"plaintext", "no-keys"}, "metrics_listen": {"metrics"}}
    if settings.http_listen:
        needed["http_listen"] = {"plaintext", "no-keys"}
    if settings.admin_token.get_secret_value():
        needed["admin_listen"] = {"plaintext"}
    given = _given(settings)
    for name, words in needed.items():
        if not _local(getattr(settings, name)) and (lacking := words - given):
            listed = ", ".join(f'"{word}"' for word in sorted(lacking))
            raise SettingsError(
                f"{PREFIX}{name.upper()}: reached from other machines without {OPEN[min(lacking)]}; "
                f"{PREFIX}PUBLIC must hold {listed} if that is meant"
            )
    if PLAINTEXT_KEYS not in given:
        _require_encrypted_keys(settings)


def _require_encrypted_keys(settings: Settings) -> None:
    """Keys and passwords of this service leave the machine by TLS alone. Raises SettingsError."""
    for name, url, keyed in _called(settings):
        try:
            readable = addresses.readable_hosts(url)
            if readable and (keyed or addresses.holds_password(url)):
                raise SettingsError(
                    f"{PREFIX}{name}: a key or password would go to {readable[0]} without TLS; "
                    f'{PREFIX}PUBLIC must hold "{PLAINTEXT_KEYS}" if that is meant'
                )
        except ValueError as error:
            raise SettingsError(f"{PREFIX}{name}: {error}") from error


def _called(settings: Settings) -> Iterator[tuple[str, str, bool]]:
    """Each URL that the service calls: its setting, the URL, and whether a setting has a key for it."""
    for kind in ("backend", "failover"):
        key = getattr(settings, f"{kind}_key").get_secret_value()
        for url in getattr(settings, f"{kind}_url").split(","):
            yield f"{kind.upper()}_URL", url.strip(), bool(key)
    yield "LEARN_JUDGE_URL", settings.learn_judge_url, bool(settings.learn_judge_key.get_secret_value())
    yield "BACKEND_PROXY", settings.backend_proxy.get_secret_value().strip(), False
    for name in ("redis_url", "outcomes_url", "verifier_url", "otlp_url"):
        yield name.upper(), getattr(settings, name), False


def _given(settings: Settings) -> set[str]:
    """The words of PUBLIC that need no more protection: those that it holds, and those that are protected."""
    given: set[str] = set(settings.public)
    if settings.tls_certificate is not None:
        given.add("plaintext")
    if requires_credentials(settings):
        given.add("no-keys")
    return given


def requires_credentials(settings: Settings) -> bool:
    """True if callers need credentials. Raises SettingsError where the file of tenants is wrong."""
    known = tenants.DEFAULT if settings.tenants is None else tenants.load(settings.tenants)
    return Tenants(known, closed=settings.require_keys).requires_credentials


def _local(listen: str) -> bool:
    return not listen or addresses.is_loopback(listen.rpartition(":")[0].strip("[]"))
