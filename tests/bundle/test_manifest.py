"""A wrong or tampered bundle is refused, and the error names the file."""

import json
import math
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bundle import features
from router.bundle.manifest import (
    FORMAT_VERSION,
    LARGEST,
    LOOKAHEAD,
    MANIFEST,
    MODEL,
    PARITY,
    QUANTILES,
    READABLE,
    TOKENIZER,
    Bundle,
    digest,
    load,
    write_manifest,
)
from router.domain import Certificate, Score
from router.errors import ArtifactError
from router.stopping.rules import AgreeRule, LearnedRule, StoppingRule, ThresholdRule
from tests.conftest import MODELS


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the bundle that ships, to be spoilt."""
    return Path(shutil.copytree(MODELS / "pocket-router", tmp_path / "bundle"))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose manifest a property test writes anew for every example."""
    return Path(shutil.copytree(MODELS / "pocket-router", tmp_path_factory.mktemp("shipped") / "bundle"))


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
    assert [f"p{100 * level:g}" for level in QUANTILES] == [field.name for field in fields(Score)][2:5]


def test_a_bundle_is_what_its_files_say(bundle: Bundle, copy: Path) -> None:
    assert bundle.version == sha256((copy / MANIFEST).read_bytes()).hexdigest() == digest(copy / MANIFEST)
    assert (bundle.model, bundle.tokenizer) == ((copy / MODEL).read_bytes(), (copy / TOKENIZER).read_bytes())
    assert set(bundle.manifest.files) == {MODEL, TOKENIZER, PARITY}


def test_a_bundle_of_before_per_prompt_targets_has_no_certificate_for_them(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.pop("per_prompt", None))
    assert load(copy).manifest.per_prompt == ()


def test_a_certificate_per_prompt_may_ask_for_a_gain(bundle: Bundle, copy: Path) -> None:
    careful = Certificate(0.05, 0.1, -0.2, 100)
    write_manifest(copy, replace(bundle.manifest, per_prompt=(careful,)))
    assert load(copy).manifest.per_prompt == (careful,)


def test_a_loaded_bundle_keeps_all_but_its_files(bundle: Bundle) -> None:
    assert bundle.loaded == replace(bundle, model=b"", tokenizer=b"")


def test_of_several_mistakes_the_first_is_named(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(format_version="first", max_tokens="many"))
    refused(copy, "format_version")


def test_a_digest_may_stand_where_it_is_none_of_the_loaded_files(copy: Path) -> None:
    edit(copy, lambda manifest: manifest["files"].update({"report.html": "0" * 64}))
    assert load(copy).manifest.files["report.html"] == "0" * 64


@pytest.mark.parametrize("version", READABLE)
def test_older_formats_are_read(copy: Path, version: int) -> None:
    edit(copy, lambda manifest: manifest.update(format_version=version))
    assert load(copy).manifest.format_version == version


def test_a_format_that_is_too_old_is_refused(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(format_version=min(READABLE) - 1))
    refused(copy, f"format {min(READABLE) - 1}, this version reads 2 and 3")


STOPPING = {
    "alpha": 0.02,
    "delta": 0.1,
    "rule": {"first": 0, "matches": 1},
    "prompts": 200,
    "thinking_tokens": 720.5,
    "probe_tokens": 44.0,
}


@pytest.mark.parametrize(
    ("rule", "read"),
    [
        ({"first": 1, "matches": 2}, AgreeRule(1, 2)),
        ({"first": 0, "least_logprob": -0.25}, ThresholdRule(0, -0.25)),
        ({"first": 0, "price": 1e-5}, LearnedRule(0, 1e-5)),
    ],
)
def test_a_rule_that_stops_within_the_thought_is_read(copy: Path, rule: dict[str, Any], read: StoppingRule) -> None:
    shutil.copy(copy / MODEL, copy / LOOKAHEAD)  # any graph will do
    edit(copy, lambda manifest: manifest["files"].update({LOOKAHEAD: digest(copy / LOOKAHEAD)}))
    edit(copy, lambda manifest: manifest.update(stopping=[STOPPING | {"rule": rule}]))
    assert [one.rule for one in load(copy).manifest.stopping] == [read]


RUNG = {"name": "8", "tokens": 8}
PROOF = {"alpha": 0.05, "delta": 0.1, "threshold": 0.5, "prompts": 100}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"certificates": [PROOF | {"alpha": -7}]}, "certificates: 0.alpha: must lie in 0..1, is -7"),
        ({"certificates": [PROOF | {"alpha": 1.5}]}, "certificates: 0.alpha"),
        ({"certificates": [PROOF, PROOF | {"alpha": 0.1, "threshold": math.nan}]}, "NaN"),
        ({"certificates": [PROOF | {"threshold": -0.1}]}, "certificates: 0.threshold"),
        ({"certificates": [PROOF | {"threshold": 1e300}]}, "certificates: 0.threshold"),
        ({"certificates": [PROOF | {"delta": 5}]}, "certificates: 0.delta: must lie between 0 and 1, is 5"),
        ({"certificates": [PROOF | {"delta": 0}]}, "certificates: 0.delta"),
        ({"certificates": [PROOF | {"prompts": -3}]}, "certificates: 0.prompts: must lie in 1..2147483647, is -3"),
        ({"certificates": [PROOF | {"prompts": 2**31}]}, "certificates: 0.prompts"),
        ({"certificates": [PROOF | {"prompts": True}]}, "certificates.0.prompts"),
        ({"certificates": [PROOF | {"alpha": "0.05"}]}, "certificates.0.alpha"),
        ({"certificates": [PROOF, PROOF]}, "certificates: two have the same alpha"),
        ({"certificates": [PROOF] * 1_001}, "certificates: at most 1000"),
        ({"absolute": [PROOF | {"threshold": 1.5}]}, "absolute: 0.threshold"),
        ({"absolute": [PROOF | {"threshold": math.inf}]}, "Infinity"),
        ({"per_prompt": [PROOF]}, "per_prompt: 0.threshold: must lie in -1..0.05, is 0.5"),
        ({"per_prompt": [PROOF | {"threshold": -1.5}]}, "per_prompt: 0.threshold"),
        ({"per_prompt": [PROOF | {"threshold": 0.01}] * 2}, "per_prompt: two have the same alpha"),
        ({"ladder": {"rungs": [RUNG | {"tokens": -1}]}}, "ladder: rungs.0.tokens: must lie in 0..2147483647, is -1"),
        ({"ladder": {"rungs": [RUNG | {"tokens": 2**31}]}}, "ladder: rungs.0.tokens"),
        ({"ladder": {"rungs": [RUNG | {"tokens": 10**400}]}}, "ladder: rungs.0.tokens"),
        ({"ladder": {"rungs": [RUNG, {"name": "4", "tokens": 4}]}}, "ladder: rungs.1.tokens: caps must ascend, 4"),
        ({"ladder": {"rungs": [RUNG, {"name": "b", "tokens": 8}]}}, "ladder: rungs.1.tokens"),
        ({"ladder": {"rungs": [{"name": "high", "tokens": None}, RUNG]}}, "ladder: rungs.1.tokens"),
        ({"ladder": {"rungs": [RUNG, RUNG | {"tokens": 9}]}}, "ladder: rungs: two have the same name"),
        ({"ladder": {"rungs": [RUNG | {"name": ""}]}}, "ladder: rungs.0.name"),
        ({"ladder": {"rungs": [RUNG | {"name": "8\n{}"}]}}, "ladder: rungs.0.name"),
        ({"ladder": {"rungs": [{"name": str(i), "tokens": i} for i in range(65)]}}, "ladder: rungs: must be 1 to 64"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -512}, "max_tokens"),
        ({"max_tokens": 2**62}, "max_tokens"),
        ({"max_tokens": 512.5}, "max_tokens"),
        ({"created_at": "0001-01-01T00:00:00Z"}, "created_at"),
        ({"created_at": "2026-11-24T03:21:49"}, "created_at"),
        ({"created_at": 1_700_000_000}, "created_at"),
        ({"profile": "telepathy"}, "profile"),
        ({"precision": "fp4"}, "precision"),
        ({"data_hash": "yes"}, "data_hash"),
        ({"backend_fingerprint": " "}, "backend_fingerprint"),
        ({"backend_fingerprint": "vllm\nforged"}, "backend_fingerprint"),
        ({"files": {"../model.onnx": "0" * 64}}, "'../model.onnx'"),
        ({"files": {"/etc/passwd": "0" * 64}}, "'/etc/passwd'"),
        ({"files": {"..": "0" * 64}}, "'..'"),
        ({"files": {"a\0b": "0" * 64}}, "a"),
        ({"files": {"model.onnx": "yes"}}, "files.model.onnx"),
        ({"metrics": {"loss": math.nan}}, "NaN"),
        ({"prescision": "int8"}, "prescision"),
        ({"format_version": 10**30}, "this version reads 2 and 3"),
        ({"stopping": [STOPPING | {"alpha": -1}]}, "0.alpha"),
        ({"stopping": [STOPPING] * 2}, "the same alpha"),
        ({"stopping": [STOPPING | {"rule": {"first": 0, "matches": 0}}]}, "0.rule.matches"),
        ({"stopping": [STOPPING | {"rule": {"first": -1, "matches": 1}}]}, "0.rule.first"),
        ({"stopping": [STOPPING | {"rule": {"first": 0, "least_logprob": 0.7}}]}, "0.rule.least_logprob"),
        ({"stopping": [STOPPING | {"rule": {"first": 0, "price": -1.0}}]}, "0.rule.price"),
        ({"stopping": [STOPPING | {"probe_tokens": -1.0}]}, "0.probe_tokens"),
    ],
)
def test_a_figure_out_of_its_range_is_named_in_one_line(copy: Path, changes: dict[str, Any], named: str) -> None:
    edit(copy, lambda manifest: manifest.update(changes))
    with pytest.raises(ArtifactError) as caught:
        load(copy)
    assert str(caught.value).startswith(f"{copy / MANIFEST}: ") and named in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "rungs",
    [
        [("8", 8)],
        [("low", None), ("high", None)],
        [("0", 0), ("8", 8), ("unlimited", None)],
        [("0", 0), ("max", 2**31 - 1)],
    ],
)
def test_ladders_of_every_kind_are_read(copy: Path, rungs: list[tuple[str, int | None]]) -> None:
    edit(copy, lambda m: m.update(ladder={"rungs": [{"name": name, "tokens": cap} for name, cap in rungs]}))
    assert [(rung.name, rung.tokens) for rung in load(copy).manifest.ladder.rungs] == rungs


def test_a_key_that_occurs_twice_is_refused(copy: Path) -> None:
    text = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text(text.replace('"max_tokens": 512', '"max_tokens": 512, "max_tokens": 8'))
    refused(copy, str(copy / MANIFEST), "'max_tokens' occurs twice")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" * 5_000, "2"])
def test_a_parity_sample_of_other_than_probabilities_is_refused(copy: Path, number: str) -> None:
    (copy / PARITY).write_text(f'{{"prompts": ["a"], "quality": [[0.5, {number}]]}}')
    edit(copy, lambda manifest: manifest["files"].update({PARITY: digest(copy / PARITY)}))
    refused(copy, str(copy / PARITY))


@pytest.mark.parametrize("name", [MANIFEST, MODEL, TOKENIZER, PARITY])
@pytest.mark.parametrize("kind", ["FIFO", "symbolic link", "socket", "too large"])
def test_only_regular_files_of_a_sensible_size_are_read(copy: Path, name: str, kind: str) -> None:
    place = copy / name
    place.rename(copy.parent / "elsewhere")
    if kind == "FIFO":
        os.mkfifo(place)
    elif kind == "symbolic link":
        place.symlink_to(copy.parent / "elsewhere")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(os.path.relpath(place))
    else:
        with place.open("wb") as file:
            file.truncate(100 << 30)
        kind = f"larger than {LARGEST[name]:,} bytes"
    refused(copy, str(place), kind)


def test_a_manifest_that_no_service_would_load_is_not_written(bundle: Bundle, copy: Path) -> None:
    before = (copy / MANIFEST).read_bytes()
    with pytest.raises(ArtifactError, match="max_tokens"):
        write_manifest(copy, replace(bundle.manifest, max_tokens=0))
    assert (copy / MANIFEST).read_bytes() == before


VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just([]) | st.just({})
)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container of a tree of JSON, with every key or index in it."""
    pairs = list(tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ())
    return [(tree, key) for key, _ in pairs] + [place for _, value in pairs for place in places(value)]


@given(st.data())
def test_a_manifest_that_loads_means_what_it_says(shipped: Path, data: st.DataObject) -> None:
    """Whatever changes in it, it is refused by name, or what was read is what stands there."""
    tree = json.loads((MODELS / "pocket-router" / MANIFEST).read_text())
    container, key = data.draw(st.sampled_from(places(tree)))
    change = data.draw(st.sampled_from(["replace", "delete", "add", "nest"]))
    if change == "replace":
        container[key] = data.draw(VALUES)
    elif change == "delete":
        del container[key]
    elif change == "add" and isinstance(container, dict):
        container[data.draw(st.text(max_size=8))] = data.draw(VALUES)
    else:
        container[key] = [container[key]]
    (shipped / MANIFEST).write_text(json.dumps(tree))
    try:
        read = load(shipped).manifest
    except ArtifactError as error:
        assert str(error).startswith(str(shipped)) and len(str(error).splitlines()) == 1
    else:
        write_manifest(shipped, read)
        said = {"precision": "fp32", "far_beyond": None, "reference": None, "answers": "text"} | tree
        said = {"stopping": [], "per_prompt": [], "per_task": [], "label_use": None} | said
        for certificate in said["certificates"] + said["absolute"] + said["per_prompt"]:
            certificate.setdefault("rung", None)
            certificate.setdefault("tie", 0.0)
            certificate.setdefault("agreement", False)
        assert json.loads((shipped / MANIFEST).read_text()) == said


@given(st.data())
def test_a_manifest_with_spoilt_bytes_is_refused_or_read(shipped: Path, data: st.DataObject) -> None:
    text = bytearray((MODELS / "pocket-router" / MANIFEST).read_bytes())
    start = data.draw(st.integers(0, len(text)))
    text[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    (shipped / MANIFEST).write_bytes(text)
    try:
        load(shipped)
    except ArtifactError as error:
        assert len(str(error).splitlines()) == 1
