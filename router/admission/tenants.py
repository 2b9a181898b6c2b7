"""Tenants: who may call, and how much. They come from a TOML file, which the service reads again when it changes.

    [search]
    keys = [{ sha256 = "9f86…", expires = 2027-06-30T00:00:00Z, methods = ["Decide", "Generate"] }]
    certificates = ["search.example.com"]
    tokens_per_minute = 600000
    streams = 50
    weight = 2
    relax = 0.03

Keys are random, so a plain SHA-256 of one cannot be reversed; `budget-router new-key` makes them.
"""

import math
import re
import secrets
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from router import files
from router.domain import Quota
from router.errors import SettingsError

Method = Literal["Decide", "DecideBatch", "Generate", "ReportOutcome", "Explain", "Process"]


class Key(BaseModel):
    """A credential as the file holds it: its digest, when it expires, and the methods it opens (None = all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    expires: AwareDatetime | None = None
    methods: frozenset[Method] | None = None

    @property
    def expired(self) -> bool:
        """True once the key is past its end."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


class Tenant(BaseModel):
    """One caller of the service.

    Attributes:
        certificates: names in client certificates that identify it.
        tokens_per_minute: thinking and answer tokens it may use: the prediction is charged first, then corrected.
        streams: generations it may have under way at once.
        weight: its share of the capacity while tenants queue for it.
        relax: P(correct) that its targets may lose while the service is overloaded, 0..1.
        gateway: it vouches for the tenants of the requests that it asks about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()
    certificates: frozenset[str] = frozenset()
    tokens_per_minute: float = Field(default=math.inf, gt=0)
    streams: float = Field(default=math.inf, ge=1)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    relax: float = Field(default=0.0, ge=0, le=1)
    gateway: bool = False

    @property
    def quota(self) -> Quota:
        """The tenant's limits."""
        return Quota(self.tokens_per_minute, self.streams)


DEFAULT = {"default": Tenant()}
"""Tenants of a service without a file: everyone who can reach it may call, as `default`."""

DEEPEST = 16
"""Dots in a key. The time to parse a key grows with their square, and no tenant needs one."""

_FILE = TypeAdapter(dict[str, Tenant])
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"?|\'[^\'\n]*\'?|#.*')
_BETWEEN = re.compile(r"[\[\]{}=,\n]")


class Tenants:
    """The tenants that are known now.

    Args:
        closed: some of them must have credentials.

    Attributes:
        requires_credentials: some tenant has credentials, so every caller needs them.
        changes: how often they were replaced.

    Raises:
        SettingsError: none has credentials although the service is closed.
    """

    def __init__(self, known: dict[str, Tenant], *, closed: bool = False) -> None:
        self.requires_credentials = closed
        self.changes = 0
        self.replace(known)

    def replace(self, known: dict[str, Tenant]) -> None:
        """Know these from the next call on.

        Raises:
            SettingsError: no caller would need credentials any more. Only a restart can open a closed service: only
                the start checks whether it may be open where it listens. The tenants stay as they were.
        """
        if self.requires_credentials and not _with_credentials(known):
            raise SettingsError("no tenant has keys or certificates: that would let everyone in")
        self._known = known
        self._by_key = {key.sha256: (name, key) for name, tenant in known.items() for key in tenant.keys}
        self._by_certificate = {cn: name for name, tenant in known.items() for cn in tenant.certificates}
        self.requires_credentials = _with_credentials(known)
        self.changes += 1

    def get(self, name: str) -> Tenant | None:
        """The tenant of that name; None if it is unknown."""
        return self._known.get(name)

    def of_key(self, key: str) -> tuple[str, Key] | None:
        """The name of the tenant that a key identifies, and the key's entry; None where no tenant has the key."""
        return self._by_key.get(digest(key))

    def of_certificate(self, names: Iterable[str]) -> str | None:
        """The tenant that a certificate with these names identifies; the first name that a tenant has decides."""
        return next((self._by_certificate[name] for name in names if name in self._by_certificate), None)


def _with_credentials(known: dict[str, Tenant]) -> bool:
    return any(tenant.keys or tenant.certificates for tenant in known.values())


def load(path: Path) -> dict[str, Tenant]:
    """Read a file's tenants by name. Raises SettingsError, which names the place at fault and repeats no value."""
    try:
        known = _FILE.validate_python(_parsed(files.read(path).decode()))
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: tables nested thousands deep
        raise SettingsError(f"{path}: {error}") from error
    if not known:
        raise SettingsError(f"{path}: the file names no tenant")
    _require_distinct(path, "key", [key.sha256 for tenant in known.values() for key in tenant.keys])
    _require_distinct(path, "certificate", [name for tenant in known.values() for name in tenant.certificates])
    return known


def _parsed(text: str) -> dict[str, object]:
    """The tables of a TOML file, in a time that grows with its length. Raises ValueError, RecursionError."""
    if any(part.count(".") > DEEPEST for part in _BETWEEN.split(_QUOTED.sub("", text))):
        raise ValueError(f"a key has more than {DEEPEST} dots")
    return tomllib.loads(text)


def _require_distinct(path: Path, kind: str, credentials: list[str]) -> None:
    if len(set(credentials)) < len(credentials):
        raise SettingsError(f"{path}: two tenants share a {kind}")


def new_key() -> str:
    """A random key of 256 bits."""
    return secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """The SHA-256 of a key in hex, which is all that the file keeps of it."""
    return sha256(key.encode()).hexdigest()
