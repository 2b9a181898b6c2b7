"""A registry of bundles: promotion and rollback are one step, and what is not a bundle never gets in."""

import json
import threading
from pathlib import Path

import pytest

from router.bundle import manifest, registry
from router.errors import ArtifactError
from tests.conftest import MODELS, another_bundle

SHIPPED = MODELS / "pocket-router"


def test_a_bundle_names_itself(tmp_path: Path) -> None:
    assert registry.locate(SHIPPED) == SHIPPED
    assert registry.locate(tmp_path / "nowhere") == tmp_path / "nowhere"


def test_what_is_promoted_is_current_and_complete(tmp_path: Path) -> None:
    version = registry.promote(tmp_path / "models", SHIPPED)
    assert manifest.load(registry.locate(tmp_path / "models")).version == version


def test_rollback_goes_back_one_by_one(tmp_path: Path) -> None:
    models = tmp_path / "models"
    versions = [registry.promote(models, another_bundle(tmp_path / name, name)) for name in "abc"]
    assert len(set(versions)) == 3
    assert registry.rollback(models) == versions[1]
    assert manifest.load(registry.locate(models)).version == versions[1]
    assert registry.rollback(models) == versions[0]
    with pytest.raises(ArtifactError, match="nothing was promoted before"):
        registry.rollback(models)
    assert registry.promote(models, tmp_path / "c") == versions[2]


def test_a_spoiled_bundle_does_not_get_in(tmp_path: Path) -> None:
    models = tmp_path / "models"
    version = registry.promote(models, SHIPPED)
    spoiled = another_bundle(tmp_path / "spoiled", "x")
    (spoiled / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match="SHA-256"):
        registry.promote(models, spoiled)
    assert registry.history(models) == [version]


def test_a_bundle_is_no_registry(tmp_path: Path) -> None:
    bundle = another_bundle(tmp_path / "bundle", "x")
    with pytest.raises(ArtifactError, match="not a registry"):
        registry.promote(bundle, SHIPPED)
    with pytest.raises(ArtifactError, match="not a registry"):
        registry.rollback(bundle)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"promoted": []}', '{"promoted": ["../../etc"]}', '{"promoted": [1]}']
)
def test_a_spoiled_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / registry.CURRENT).write_text(text)
    with pytest.raises(ArtifactError, match=registry.CURRENT):
        registry.locate(tmp_path)


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="file"):
        registry.promote(tmp_path / "file", SHIPPED)


def test_promotions_at_once_are_all_kept_and_readers_always_find_a_bundle(tmp_path: Path) -> None:
    models = tmp_path / "models"
    registry.promote(models, SHIPPED)
    bundles = [another_bundle(tmp_path / str(i), str(i)) for i in range(8)]
    promoting = [threading.Thread(target=registry.promote, args=(models, bundle)) for bundle in bundles]
    for thread in promoting:
        thread.start()
    while any(thread.is_alive() for thread in promoting):
        manifest.load(registry.locate(models))
    assert len(registry.history(models)) == 9
    assert json.loads((models / registry.CURRENT).read_text())["promoted"] == registry.history(models)
