"""A wrong or tampered bundle is refused, and the error names the file."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from router.bundle import features
from router.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    MODEL,
    PARITY,
    QUANTILES,
    TOKENIZER,
    Bundle,
    digest,
    load,
    write_manifest,
)
from router.domain import Score
from router.errors import ArtifactError
from tests.conftest import MODELS


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the bundle that ships, to be spoilt."""
    return Path(shutil.copytree(MODELS / "pocket-router", tmp_path / "bundle"))


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest."""
    path = directory / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def refused(directory: Path, *said: str) -> None:
    """Loading fails, and the message says all of `said`."""
    with pytest.raises(ArtifactError) as caught:
        load(directory)
    for words in said:
        assert words in str(caught.value)


def test_the_bundle_that_ships_is_whole(bundle: Bundle) -> None:
    assert len(bundle.version) == 64
    assert bundle.parity.prompts
    assert all(len(row) == len(bundle.manifest.ladder) for row in bundle.parity.quality)


def test_the_same_bundle_has_the_same_version(bundle: Bundle, copy: Path) -> None:
    assert load(copy) == bundle


def test_a_changed_manifest_is_another_version(bundle: Bundle, copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(backend_fingerprint="another"))
    assert load(copy).version != bundle.version


def test_a_written_manifest_reads_back(bundle: Bundle, copy: Path) -> None:
    write_manifest(copy, bundle.manifest)
    assert load(copy).manifest == bundle.manifest


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", str(tmp_path / "nowhere" / MANIFEST), "No such file")


@pytest.mark.parametrize("name", [MANIFEST, MODEL, PARITY])
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    refused(copy, str(copy / name), "No such file")


@pytest.mark.parametrize("name", [MANIFEST, MODEL, PARITY])
def test_a_directory_in_place_of_a_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    (copy / name).mkdir()
    refused(copy, str(copy / name))


@pytest.mark.parametrize("name", [MODEL, PARITY])
def test_one_flipped_bit_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    refused(copy, str(copy / name), "SHA-256")


@pytest.mark.parametrize("name", [MODEL, PARITY])
def test_a_file_that_the_manifest_does_not_vouch_for_is_refused(copy: Path, name: str) -> None:
    edit(copy, lambda manifest: manifest["files"].pop(name))
    refused(copy, str(copy / name), "SHA-256")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b'{"format_version": 1}', b"[" * 100_000]
)
def test_a_malformed_manifest_is_refused(copy: Path, text: bytes) -> None:
    (copy / MANIFEST).write_bytes(text)
    refused(copy, MANIFEST)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"prompts": 3}', b'{"prompts": ["a"], "quality": [["x"]]}'])
def test_a_malformed_parity_sample_is_refused(copy: Path, text: bytes) -> None:
    (copy / PARITY).write_bytes(text)
    edit(copy, lambda manifest: manifest["files"].update({PARITY: digest(copy / PARITY)}))
    refused(copy, PARITY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format_version", "first"),
        ("created_at", "yesterday"),
        ("ladder", {"rungs": [{"name": "0", "tokens": "many"}]}),
        ("certificates", [{"alpha": 0.05}]),
        ("files", ["model.onnx"]),
    ],
)
def test_a_malformed_field_is_named(copy: Path, field: str, value: object) -> None:
    edit(copy, lambda manifest: manifest.update({field: value}))
    refused(copy, MANIFEST, field)


@pytest.mark.parametrize("field", ["ladder", "feature_version", "files", "certificates"])
def test_a_missing_field_is_named(copy: Path, field: str) -> None:
    edit(copy, lambda manifest: manifest.pop(field))
    refused(copy, MANIFEST, field)


def test_another_format_is_refused(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(format_version=FORMAT_VERSION + 1))
    refused(copy, str(copy), f"format {FORMAT_VERSION + 1}")


def test_features_of_another_version_are_refused(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(feature_version="static-0"))
    refused(copy, str(copy), "static-0", features.VERSION)


def test_a_ladder_without_rungs_is_refused(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(ladder={"rungs": []}))
    refused(copy, str(copy), "no rungs")


def test_the_quantiles_are_those_of_a_score() -> None:
    assert [f"p{100 * level:g}" for level in QUANTILES] == [field.name for field in fields(Score)][2:]


def test_a_bundle_is_what_its_files_say(bundle: Bundle, copy: Path) -> None:
    assert bundle.version == sha256((copy / MANIFEST).read_bytes()).hexdigest() == digest(copy / MANIFEST)
    assert (bundle.model, bundle.tokenizer) == ((copy / MODEL).read_bytes(), (copy / TOKENIZER).read_bytes())
    assert set(bundle.manifest.files) == {MODEL, TOKENIZER, PARITY}


def test_a_loaded_bundle_keeps_all_but_its_files(bundle: Bundle) -> None:
    assert bundle.loaded == replace(bundle, model=b"", tokenizer=b"")


def test_of_several_mistakes_the_first_is_named(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(format_version="first", max_tokens="many"))
    refused(copy, "format_version")


def test_a_digest_may_stand_where_it_is_none_of_the_loaded_files(copy: Path) -> None:
    edit(copy, lambda manifest: manifest["files"].update({"report.html": "0" * 64}))
    assert load(copy).manifest.files["report.html"] == "0" * 64


def test_an_older_format_is_refused(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(format_version=FORMAT_VERSION - 1))
    refused(copy, f"format {FORMAT_VERSION - 1}, this version reads {FORMAT_VERSION}")
