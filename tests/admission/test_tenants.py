"""The file of tenants: what it may say, and what a reload may not do."""

import math
import os
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import ValidationError

from router.admission import tenants
from router.admission.tenants import Key, Tenant, Tenants
from router.domain import Quota
from router.errors import SettingsError
from router.files import MOST_BYTES

DIGEST = tenants.digest("a key")


def written(directory: Path, text: str) -> Path:
    """A file of tenants."""
    path = directory / "tenants.toml"
    path.write_text(text)
    return path


def test_a_file_says_who_may_ask_and_how_much(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"""
        [search]
        keys = [{{ sha256 = "{DIGEST}", expires = 2100-01-01T00:00:00Z, methods = ["Decide"] }}]
        certificates = ["search.example.com"]
        tokens_per_minute = 600
        streams = 5
        weight = 2
        relax = 0.03

        [other]
        """,
    )
    known = Tenants(tenants.load(path))
    assert known.requires_credentials
    found = known.of_key("a key")
    assert found is not None
    name, key = found
    assert (name, key.methods, key.expired) == ("search", frozenset({"Decide"}), False)
    assert known.of_key("another key") is None and known.of_key(DIGEST) is None
    assert known.of_certificate(["unknown", "search.example.com"]) == "search"
    search, other = known.get("search"), known.get("other")
    assert search is not None and (search.tokens_per_minute, search.streams, search.relax) == (600, 5, 0.03)
    assert other is not None and (other.tokens_per_minute, other.weight, other.relax) == (math.inf, 1, 0)
    assert known.get("nobody") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no tenant"),
        ("[a", "tenants.toml"),
        ("[a]\nkeyz = []", "a.keyz"),
        ("[a]\nweight = 0\n[b]\nweight = 0", "a.weight"),
        ('[a]\nkeys = [{ sha256 = "short" }]', "a.keys.0.sha256"),
        (f'[a]\nkeys = [{{ sha256 = "{DIGEST}", methods = ["FlushCache"] }}]', "a.keys.0.methods"),
        (f'[a]\nkeys = [{{ sha256 = "{DIGEST}", expires = 2030-01-01 }}]', "a.keys.0.expires"),
        ("[a]\nrelax = 2", "a.relax"),
        ("[a]\nweight = 0", "a.weight"),
        ("[a]\nstreams = 0", "a.streams"),
        ("[a]\ntokens_per_minute = nan", "a.tokens_per_minute"),
        (f'[a]\nkeys = [{{ sha256 = "{DIGEST}" }}]\n[b]\nkeys = [{{ sha256 = "{DIGEST}" }}]', "share a key"),
        ('[a]\ncertificates = ["c"]\n[b]\ncertificates = ["c"]', "share a certificate"),
        ("a = " + "[" * 10_000, "recursion"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        tenants.load(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        tenants.load(tmp_path / "nowhere.toml")


def test_keys_end() -> None:
    now = datetime.now(UTC)
    assert Key(sha256=DIGEST, expires=now - timedelta(seconds=1)).expired
    assert not Key(sha256=DIGEST, expires=now + timedelta(minutes=1)).expired
    assert not Key(sha256=DIGEST).expired


def test_new_keys_are_long_and_never_the_same() -> None:
    made = {tenants.new_key() for _ in range(100)}
    assert len(made) == 100 and min(map(len, made)) >= 43


def test_a_closed_service_is_never_opened_by_its_file() -> None:
    with_key = {"a": Tenant(keys=(Key(sha256=DIGEST),))}
    known = Tenants(with_key)
    with pytest.raises(SettingsError, match="let everyone in"):
        known.replace({"a": Tenant()})
    assert known.requires_credentials and known.of_key("a key") is not None, "the last good file stays"
    known.replace({"b": Tenant(certificates=frozenset({"b"}))})
    assert known.of_key("a key") is None and known.of_certificate(["b"]) == "b"


def test_an_open_service_may_be_closed_by_its_file() -> None:
    known = Tenants({"a": Tenant()})
    known.replace({"b": Tenant()})
    assert not known.requires_credentials
    known.replace({"b": Tenant(keys=(Key(sha256=DIGEST),))})
    assert known.requires_credentials
    with pytest.raises(SettingsError):
        known.replace({"b": Tenant()})


def test_without_credentials_nothing_is_closed() -> None:
    assert not Tenants(tenants.DEFAULT).requires_credentials
    assert not Tenants({"a": Tenant()}).requires_credentials
    assert Tenants({"a": Tenant(certificates=frozenset({"a"}))}).requires_credentials


def test_every_number_reaches_its_limits(tmp_path: Path) -> None:
    known = tenants.load(
        written(
            tmp_path,
            """
            [least]
            tokens_per_minute = 0.5
            streams = 1
            weight = 0.5
            relax = 0

            [most]
            tokens_per_minute = inf
            streams = inf
            relax = 1
            """,
        )
    )
    least, most = known["least"], known["most"]
    assert (least.quota, least.weight, least.relax) == (Quota(0.5, 1), 0.5, 0)
    assert (most.quota, most.weight, most.relax) == (Quota(), 1, 1)


@pytest.mark.parametrize(
    "line", ["weight = inf", "weight = -1", "tokens_per_minute = 0", "streams = 0.5", "relax = -0.1", "relax = 1.1"]
)
def test_what_lies_beyond_a_limit_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError, match=f"a.{line.partition(' ')[0]}"):
        tenants.load(written(tmp_path, f"[a]\n{line}"))


def test_a_key_is_over_from_its_very_end() -> None:
    assert Key(sha256=DIGEST, expires=datetime.now(UTC)).expired


def test_a_tenant_may_have_several_keys_and_certificates(tmp_path: Path) -> None:
    other = tenants.digest("another key")
    text = f'''
        [a]
        keys = [{{ sha256 = "{DIGEST}" }}, {{ sha256 = "{other}" }}]
        certificates = ["one", "two"]

        [b]
        certificates = ["three"]
        '''
    known = Tenants(tenants.load(written(tmp_path, text)))
    for key in ("a key", "another key"):
        found = known.of_key(key)
        assert found is not None and found[0] == "a" and found[1].methods is None
    assert [known.of_certificate([name]) for name in ("one", "two", "three", "four")] == ["a", "a", "b", None]
    assert known.of_certificate([]) is None


def test_what_is_read_of_a_tenant_does_not_change() -> None:
    for model, name in ((Tenant(), "weight"), (Key(sha256=DIGEST), "expires")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, name, None)


def test_a_new_key_has_256_bits_and_64_digits_are_kept_of_it() -> None:
    key = tenants.new_key()
    assert len(urlsafe_b64decode(key + "=")) == 32
    assert Key(sha256=tenants.digest(key)).sha256 == sha256(key.encode()).hexdigest()


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path: Path) -> None:
    """Opening a FIFO would wait for a writer, for ever."""
    os.mkfifo(path := tmp_path / "fifo")
    for other in (path, tmp_path, Path("/dev/zero")):
        with pytest.raises(SettingsError, match="not a regular file"):
            tenants.load(other)
    (large := tmp_path / "large").write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(SettingsError, match="larger than"):
        tenants.load(large)
    (latin := tmp_path / "latin").write_bytes("[ä]".encode("latin1"))
    with pytest.raises(SettingsError, match="utf-8"):
        tenants.load(latin)


def test_a_service_that_is_closed_from_the_start_needs_credentials() -> None:
    with pytest.raises(SettingsError, match="let everyone in"):
        Tenants({"a": Tenant()}, closed=True)
    assert Tenants({"a": Tenant(certificates=frozenset({"a"}))}, closed=True).requires_credentials
