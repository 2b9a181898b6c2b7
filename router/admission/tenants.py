"""Who may ask, and how much: tenants by name, read from a TOML file whenever it changes.

    [search]
    keys = [{ sha256 = "9f86…", expires = 2027-06-30T00:00:00Z, methods = ["Decide", "Generate"] }]
    certificates = ["search.example.com"]
    tokens_per_minute = 600000
    streams = 50
    weight = 2
    relax = 0.03

Keys are random, so a plain SHA-256 of them can not be reversed; `budget-router new-key` makes them.
"""

import asyncio
import math
import secrets
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from router.domain import Quota
from router.errors import SettingsError
from router.events import Degraded
from router.ports import Observer

Method = Literal["Decide", "DecideBatch", "Generate", "ReportOutcome", "Explain"]
FOLLOW_SECONDS = 1.0
"""How often is looked whether the file has changed."""


class Key(BaseModel):
    """A credential, as far as it is kept: its digest, its end, and the methods it opens (None = all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    expires: AwareDatetime | None = None
    methods: frozenset[Method] | None = None

    @property
    def expired(self) -> bool:
        """It is over."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


class Tenant(BaseModel):
    """One caller of the service.

    Attributes:
        certificates: names in client certificates that stand for it.
        tokens_per_minute: thinking and answer tokens that it may use, as predicted, then as it turned out.
        streams: generations that it may have under way.
        weight: its share when tenants wait for capacity.
        relax: how much P(correct) its targets may give way by while the service is overloaded, 0..1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()
    certificates: frozenset[str] = frozenset()
    tokens_per_minute: float = Field(default=math.inf, gt=0)
    streams: float = Field(default=math.inf, ge=1)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    relax: float = Field(default=0.0, ge=0, le=1)

    @property
    def quota(self) -> Quota:
        """What it may have."""
        return Quota(self.tokens_per_minute, self.streams)


DEFAULT = {"default": Tenant()}
"""Who may ask where no file says more: anyone who can reach the service."""

_FILE = TypeAdapter(dict[str, Tenant])


class Tenants:
    """The tenants that are known now."""

    def __init__(self, known: dict[str, Tenant]) -> None:
        self.replace(known)

    def replace(self, known: dict[str, Tenant]) -> None:
        """Know these from now on."""
        self._known = known
        self._by_key = {key.sha256: (name, key) for name, tenant in known.items() for key in tenant.keys}
        self._by_certificate = {cn: name for name, tenant in known.items() for cn in tenant.certificates}

    @property
    def requires_credentials(self) -> bool:
        """Some tenant has credentials, so that everyone needs them."""
        return bool(self._by_key or self._by_certificate)

    def get(self, name: str) -> Tenant | None:
        """The tenant of that name."""
        return self._known.get(name)

    def of_key(self, key: str) -> tuple[str, Key] | None:
        """The tenant that a key stands for, and what is kept of the key."""
        return self._by_key.get(digest(key))

    def of_certificate(self, names: Iterable[str]) -> str | None:
        """The tenant that a certificate with these names stands for."""
        return next((self._by_certificate[name] for name in names if name in self._by_certificate), None)

    async def follow(self, path: Path, observer: Observer) -> None:
        """Read the file again whenever it changes; where it is unusable, the last good one counts. Never returns."""
        seen = _stamp(path)
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            if (stamp := _stamp(path)) != seen:
                seen = stamp
                try:
                    self.replace(load(path))
                except SettingsError as error:
                    observer(Degraded("tenants", str(error)))


def load(path: Path) -> dict[str, Tenant]:
    """Tenants of a file by name. Raises SettingsError, which names the place and repeats no value."""
    try:
        known = _FILE.validate_python(tomllib.loads(path.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from error
    if not known:
        raise SettingsError(f"{path}: it names no tenant")
    keys = [key.sha256 for tenant in known.values() for key in tenant.keys]
    if len(set(keys)) < len(keys):
        raise SettingsError(f"{path}: two tenants share a key")
    return known


def new_key() -> str:
    """A random key of 256 bits."""
    return secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """What is kept of a key."""
    return sha256(key.encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_ino
