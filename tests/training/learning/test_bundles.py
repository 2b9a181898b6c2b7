"""Which bundle replaces which in the registry."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from router.bundle import manifest, registry
from router.domain import BudgetLadder
from tests.training.learning.conftest import ALPHA, Learned
from training.export import reissue
from training.learning.bundles import MARGIN, promote


@pytest.fixture
def folder(learned: Learned, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learned.folder / "registry", tmp_path / "registry"))


def variant(folder: Path, out: Path, savings: dict[float, float], **about: object) -> Path:
    """The current bundle with other figures."""
    current = registry.locate(folder)
    own = manifest.load(current).manifest
    figures = [{"alpha": alpha, "loss": 0.0, "top": saved, "hull": None} for alpha, saved in savings.items()]
    reissue(current, replace(own, metrics=own.metrics | {"policies": figures}, **about), out)  # type: ignore[arg-type]
    return out


def test_only_a_bundle_that_saves_more_replaces_one_that_was_learned(folder: Path, tmp_path: Path) -> None:
    first = variant(folder, tmp_path / "first", {ALPHA: 0.3, 0.05: 0.4})
    assert promote(folder, first, ALPHA)
    assert promote(folder, first, ALPHA) and len(registry.history(folder)) == 2  # it is there already
    for name, savings in {
        "as much": {ALPHA: 0.3 + MARGIN / 2, 0.05: 0.4},
        "less": {ALPHA: 0.2, 0.05: 0.4},
        "more elsewhere, less at the target": {ALPHA: 0.2, 0.05: 0.9},
    }.items():
        assert not promote(folder, variant(folder, tmp_path / name, savings), ALPHA), name
    elsewhere = variant(folder, tmp_path / "elsewhere", {ALPHA: 0.3, 0.05: 0.5})
    assert promote(folder, elsewhere, ALPHA)
    assert len(registry.history(folder)) == 3


def test_any_bundle_replaces_one_that_is_suspended_or_about_another_engine(folder: Path, tmp_path: Path) -> None:
    worse = variant(folder, tmp_path / "worse", {ALPHA: 0.0})
    assert not promote(folder, worse, ALPHA)
    assert promote(folder, worse, ALPHA, suspended=lambda version: version == registry.history(folder)[-1])
    shorter = BudgetLadder(manifest.load(worse).manifest.ladder.rungs[1:])
    assert not promote(folder, variant(folder, tmp_path / "shorter", {ALPHA: 0.0}, ladder=shorter), ALPHA)
    other = variant(folder, tmp_path / "other", {ALPHA: 0.0}, backend_fingerprint="another/1/native")
    assert promote(folder, other, ALPHA)
