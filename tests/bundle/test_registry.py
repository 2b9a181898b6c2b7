"""A registry of bundles: promotion and rollback are one step, and what is not a bundle never gets in."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from router.bundle import manifest, registry
from router.bundle.files import LOCK
from router.errors import ArtifactError
from router.files import locked
from tests.conftest import MODELS, another_bundle
from tests.support.clock import Clock

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


@pytest.mark.parametrize("make", [True, False], ids=["empty", "absent"])
def test_a_registry_without_a_bundle_says_how_it_gets_one(make: bool, tmp_path: Path) -> None:
    models = tmp_path / "models"
    if make:
        models.mkdir()
    for asked in (registry.history, registry.rollback):
        with pytest.raises(ArtifactError, match=f"`budget-train promote BUNDLE --registry {models}`"):
            asked(models)
    with pytest.raises(ArtifactError, match=r"manifest.json: No such file .*`budget-train promote` a registry"):
        manifest.load(registry.locate(models))


def test_a_bundle_is_no_registry(tmp_path: Path) -> None:
    bundle = another_bundle(tmp_path / "bundle", "x")
    with pytest.raises(ArtifactError, match="not a registry"):
        registry.promote(bundle, SHIPPED)
    with pytest.raises(ArtifactError, match="not a registry"):
        registry.rollback(bundle)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"promoted": []}', '{"promoted": ["../../etc"]}', '{"promoted": [1]}', '{"promoted": "abc"}'],
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


def entries(models: Path) -> list[str]:
    """Everything that a registry holds of versions, leftovers included."""
    versions = models / registry.VERSIONS
    return sorted(path.name for path in versions.iterdir()) if versions.exists() else []


@pytest.mark.parametrize("name", ["report.html", "manifest.json", "more"])
@pytest.mark.parametrize(
    "kind", ["a symbolic link", "a symbolic link to a folder", "a FIFO", "a folder", "larger than"]
)
def test_a_bundle_has_regular_files_alone(tmp_path: Path, name: str, kind: str) -> None:
    models, bundle = tmp_path / "models", another_bundle(tmp_path / "bundle", "x")
    (bundle / name).unlink(missing_ok=True)
    if kind == "a symbolic link":
        (bundle / name).symlink_to(SHIPPED / "manifest.json")
    elif kind == "a symbolic link to a folder":
        (bundle / name).symlink_to(SHIPPED)
    elif kind == "a FIFO":
        os.mkfifo(bundle / name)
    elif kind == "a folder":
        (bundle / name).mkdir()
    else:
        with (bundle / name).open("wb") as file:
            file.truncate(100 << 30)
    with pytest.raises(ArtifactError, match=f"{name}: .*{kind.removesuffix(' to a folder')}"):
        registry.promote(models, bundle)
    assert entries(models) == [] and not (models / registry.CURRENT).exists()


def test_a_link_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(SHIPPED)
    with pytest.raises(ArtifactError, match="link: a symbolic link, not a folder"):
        registry.promote(tmp_path / "models", tmp_path / "link")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_promoted_file_is_as_private_as_it_was(tmp_path: Path, mode: int) -> None:
    bundle = another_bundle(tmp_path / "bundle", "x")
    (bundle / manifest.PARITY).chmod(mode)
    version = registry.promote(tmp_path / "models", bundle)
    kept = tmp_path / "models" / registry.VERSIONS / version / manifest.PARITY
    assert stat.S_IMODE(kept.stat().st_mode) == mode


def test_a_folder_of_many_files_is_no_bundle(tmp_path: Path) -> None:
    bundle = another_bundle(tmp_path / "bundle", "x")
    for i in range(registry.MOST_FILES):
        (bundle / f"{i}").touch()
    with pytest.raises(ArtifactError, match="more than"):
        registry.promote(tmp_path / "models", bundle)


def test_every_file_that_the_manifest_names_is_compared(tmp_path: Path) -> None:
    bundle = another_bundle(tmp_path / "bundle", "x")
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    named = another_bundle(tmp_path / "named", "x", files=files | {"report.html": "0" * 64})
    with pytest.raises(ArtifactError, match=r"report\.html: its SHA-256"):
        registry.promote(tmp_path / "models", named)


def test_a_bundle_that_changes_meanwhile_is_refused_and_its_digest_is_not(tmp_path: Path) -> None:
    models, bundle = tmp_path / "models", another_bundle(tmp_path / "bundle", "x")
    report, stop, refused = bundle / "report.html", threading.Event(), 0

    def change() -> None:
        with report.open("r+") as file:
            while not stop.is_set():
                file.seek(0)
                file.write("changed" * 1_000)
                file.truncate()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(5):
            try:
                registry.promote(models, bundle)
            except ArtifactError as error:
                assert "changed while it was" in str(error)
                refused += 1
    finally:
        stop.set()
        changing.join()
    version = registry.promote(models, bundle)
    assert registry.history(models) == [version] * (6 - refused)
    assert entries(models) == [version]


def test_a_version_that_was_spoilt_is_mended_by_its_promotion(tmp_path: Path) -> None:
    models = tmp_path / "models"
    version = registry.promote(models, SHIPPED)
    (models / registry.VERSIONS / version / "model.onnx").write_bytes(b"half")
    assert registry.promote(models, SHIPPED) == version
    assert manifest.load(registry.locate(models)).version == version
    shutil.rmtree(models / registry.VERSIONS / version)
    (models / registry.VERSIONS / version).symlink_to(SHIPPED)
    registry.promote(models, SHIPPED)
    assert not registry.locate(models).is_symlink() and entries(models) == [version]


def test_a_promotion_that_was_closed_copies_nothing(tmp_path: Path) -> None:
    """A call may be cancelled before its copy begins in another thread."""
    promotion = registry.Promotion(tmp_path / "models", SHIPPED)
    promotion.close()
    with pytest.raises(ArtifactError, match="cancelled"):
        promotion.copy()
    assert not (tmp_path / "models").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from router.bundle.registry import Promotion

promotion = Promotion(Path(sys.argv[1]), Path(sys.argv[2]))
promotion.copy()
print("copied", flush=True)
signal.pause()
"""


def test_what_a_killed_promotion_left_is_removed_and_what_a_living_one_needs_is_not(tmp_path: Path) -> None:
    models = tmp_path / "models"
    promoting = [
        subprocess.Popen([sys.executable, "-c", KILLED, str(models), str(SHIPPED)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for process in promoting:
            assert process.stdout is not None and process.stdout.readline() == b"copied\n"
        killed, living = promoting
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        (models / registry.VERSIONS / ".tmp0of1an2earlier3version").mkdir()
        assert len(entries(models)) == 3
        registry.sweep(models)
        assert len(entries(models)) == 1
        version = registry.promote(models, SHIPPED)
        assert len(entries(models)) == 2
        living.send_signal(signal.SIGKILL)
        living.wait()
        registry.promote(models, SHIPPED)
        assert entries(models) == [version]
    finally:
        for process in promoting:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_a_registry_whose_lock_a_stopped_process_holds_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote(tmp_path, SHIPPED)
    registry.promote(tmp_path, another_bundle(tmp_path / "bundle", "x"))
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    monkeypatch.setattr("time.sleep", clock.pass_by)
    with (
        locked(tmp_path / LOCK, make=True),
        pytest.raises(ArtifactError, match=r"\.lock: another process has held its lock"),
    ):
        registry.rollback(tmp_path)
    registry.rollback(tmp_path)


@pytest.mark.parametrize("name", [registry.CURRENT, LOCK, f".{registry.CURRENT}.tmp"])
def test_a_fifo_in_the_registry_hangs_nobody(tmp_path: Path, name: str) -> None:
    (tmp_path / registry.VERSIONS).mkdir()
    os.mkfifo(tmp_path / name)
    if name == registry.CURRENT:
        with pytest.raises(ArtifactError, match=registry.CURRENT):
            registry.locate(tmp_path)
        with pytest.raises(ArtifactError, match=registry.CURRENT):
            registry.promote(tmp_path, SHIPPED)
    else:
        assert registry.locate(tmp_path) == tmp_path
        assert registry.promote(tmp_path, SHIPPED)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"promoted": ' + "1" * 10_000 + "}", "\x00", '{"promoted": ["a/b"]}'])
def test_a_hostile_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / registry.CURRENT).write_text(text)
    with pytest.raises(ArtifactError, match=registry.CURRENT):
        registry.history(tmp_path)
