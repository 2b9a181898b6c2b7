"""A registry counts how often labels certify, whatever becomes of the bundles."""

from dataclasses import replace
from pathlib import Path

import pytest

from router.bundle import manifest, registry, spent_delta
from router.errors import ArtifactError
from tests.conftest import another_bundle

GROUPS = [f"prompt {i}" for i in range(1_000)]


def halved(use: int) -> float:
    return 0.1 * 0.5**use


def test_each_use_of_the_same_labels_is_counted(tmp_path: Path) -> None:
    uses = [spent_delta.spend(tmp_path / "models", GROUPS, halved) for _ in range(3)]
    assert [use.delta for use in uses] == [0.05, 0.025, 0.0125] and len({use.run for use in uses}) == 3
    assert spent_delta.earlier(tmp_path / "models", GROUPS) == uses


def test_labels_are_recognised_in_another_order_and_among_others(tmp_path: Path) -> None:
    spent_delta.spend(tmp_path, GROUPS, halved)
    for again in (GROUPS[::-1], GROUPS + [f"new {i}" for i in range(3_000)], GROUPS[500:]):
        assert len(spent_delta.earlier(tmp_path, again)) == 1
    assert spent_delta.earlier(tmp_path, [f"new {i}" for i in range(1_000)]) == []


def test_a_bundle_of_another_place_is_counted_when_it_is_promoted_and_once_only(tmp_path: Path) -> None:
    use = spent_delta.use_of(GROUPS, 0.1)
    bundle = another_bundle(tmp_path / "bundle", "x")
    (bundle / "manifest.json").unlink()
    manifest.write_manifest(bundle, replace(manifest.load(another_bundle(tmp_path / "y", "x")).manifest, label_use=use))
    for _ in range(2):
        registry.promote(tmp_path / "models", bundle)
    assert spent_delta.earlier(tmp_path / "models", GROUPS) == [use]


@pytest.mark.parametrize("text", ["", "[{}]", '{"a": 1}', "[" * 100_000])
def test_a_damaged_record_is_named_and_nothing_is_spent(text: str, tmp_path: Path) -> None:
    (tmp_path / "spent.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"spent\.json: not a record"):
        spent_delta.spend(tmp_path, GROUPS, halved)
    assert (tmp_path / "spent.json").read_text() == text


def test_the_record_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spent_delta, "MOST_USES", 3)
    for _ in range(5):
        last = spent_delta.spend(tmp_path, GROUPS, halved)
    kept = spent_delta.earlier(tmp_path, GROUPS)
    assert len(kept) == 3 and kept[-1] == last and len(last.groups) == spent_delta.SKETCH
