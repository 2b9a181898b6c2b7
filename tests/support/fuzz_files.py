"""Files that operators write, fuzzed: manifests of bundles and files of tenants. None may crash, or pass out of range.

Bytes alone are hardly ever a whole file, so most inputs are changes of a good one, one a line: the first byte of a line
says where, the second how, and the rest is the value.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from router.admission import tenants
from router.admission.tenants import Key, Tenant, Tenants
from router.bundle.manifest import MANIFEST, Manifest, _manifest
from router.domain import MaxLoss, MinQuality
from router.errors import ArtifactError, SettingsError
from router.routing.policy import LatencyProfile, Policy

SHIPPED = Path(__file__).parents[2] / "router" / "models" / "pocket-router" / MANIFEST
TARGETS_ASKED = (MaxLoss(0.0), MaxLoss(0.02), MaxLoss(1.0), MinQuality(0.5), MinQuality(1.0))
A, B = 64 * "a", 64 * "b"
LINES = (
    "[$]",
    'keys = [{ sha256 = "$" }]',
    f'keys = [{{ sha256 = "{A}", expires = $ }}]',
    f'keys = [{{ sha256 = "{B}", methods = ["$"] }}]',
    'certificates = ["$"]',
    "tokens_per_minute = $",
    "streams = $",
    "weight = $",
    "relax = $",
    "$",
)
"""Lines of a file of tenants; the value comes in place of the `$`."""

SHARED_MEMORY = Path("/dev/shm")
_folder = TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)  # a disk takes milliseconds a write


def manifest(data: bytes) -> str:
    """A manifest; what is wrong with it, or "OK" where it is served, and then its certificates must be in range."""
    try:
        read = _manifest(data if data.startswith(b"{") else _changed(data), Path(MANIFEST))
    except ArtifactError as error:
        return _kind(error)
    _require_range(read)
    return "OK"


def tenants_file(data: bytes) -> str:
    """A file of tenants; what is wrong with it, or "OK", and then no quota or weight may be out of range."""
    path = Path(_folder.name) / "tenants.toml"
    path.write_bytes(data if data.startswith(b"[") else b"\n".join(_filled(data)))
    try:
        known = tenants.load(path)
    except SettingsError as error:
        return _kind(error)
    for tenant in known.values():
        assert tenant.weight > 0 and isfinite(tenant.weight) and 0 <= tenant.relax <= 1
        assert tenant.tokens_per_minute > 0 and tenant.streams >= 1
    _require_closed(known)
    return "OK"


def _require_range(read: Manifest) -> None:
    """Assert that certificates and caps can be served."""
    for certificate in read.per_prompt:
        assert -1 <= certificate.threshold <= certificate.alpha
    for certificate in (*read.certificates, *read.absolute):
        assert 0 <= certificate.alpha <= 1 and 0 < certificate.delta < 1 and certificate.prompts >= 1
        assert isfinite(certificate.threshold) and certificate.threshold >= 0
    assert len({rung.name for rung in read.ladder.rungs}) == len(read.ladder.rungs) > 0
    assert read.max_tokens > 0
    for certificates in (read.certificates, read.absolute):
        policy = Policy(read.ladder, certificates, LatencyProfile(0, 0, 0))
        for target in TARGETS_ASKED:
            policy.certificate(target)


def _require_closed(known: dict[str, Tenant]) -> None:
    """Assert that a service that asks for keys goes on to ask for them, whatever the file says."""
    served = Tenants({"one": Tenant(keys=(Key(sha256=A),))})
    with suppress(SettingsError):
        served.replace(known)
    assert served.requires_credentials


def _changed(data: bytes) -> bytes:
    """The shipped manifest with changes."""
    content = _shipped()
    for line in data.split(b"\n"):
        places = list(_places(content))
        if len(line) < 2 or not places:
            continue
        parent, key = places[line[0] % len(places)]
        match line[1] % 4:
            case 0:
                parent[key] = line[2:].decode(errors="surrogateescape")
            case 1:
                parent[key] = _json(line[2:])
            case 2:
                del parent[key]
            case _:
                parent[key] = [parent[key]] * (len(line) - 1)
    return json.dumps(content).encode()


def _filled(data: bytes) -> Iterator[bytes]:
    """Lines of a file of tenants with values."""
    for line in data.split(b"\n"):
        if line:
            yield LINES[line[0] % len(LINES)].encode().replace(b"$", line[1:])


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a JSON document, by its parent and its key there."""
    keys = content if isinstance(content, dict) else range(len(content))
    for key in list(keys):
        yield content, key
        if isinstance(content[key], dict | list):
            yield from _places(content[key])


def _json(value: bytes) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return float(len(value)) / 7


def _shipped() -> Any:
    """The shipped manifest without its figures, a fresh copy."""
    return json.loads(_text())


@cache
def _text() -> str:
    return json.dumps(json.loads(SHIPPED.read_text()) | {"metrics": {}})


def _kind(error: Exception) -> str:
    """What is wrong, without the values."""
    return str(error).partition(": ")[2].partition(":")[0][:40]
