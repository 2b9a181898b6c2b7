"""Files of operators are read without waiting, and private files are private whatever the umask."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from router import files
from tests.support.clock import Clock


@pytest.fixture(autouse=True)
def permissive() -> Iterator[None]:
    """A umask that takes no permission away."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    (path := tmp_path / "file").write_bytes(b"12345678")
    assert files.read(path) == files.read(path, 8) == b"12345678"
    with pytest.raises(OSError, match="larger than 7 bytes"):
        files.read(path, 7)
    (link := tmp_path / "link").symlink_to(path)
    assert files.read(link) == b"12345678"
    with pytest.raises(OSError, match="a symbolic link, not a regular file"):
        files.read(link, follow_links=False)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("made", [fifo, device, folder])
def test_what_is_no_regular_file_is_neither_waited_for_nor_read(tmp_path: Path, made: Callable[[Path], None]) -> None:
    made(path := tmp_path / "file")
    with pytest.raises(OSError, match="not a regular file"):
        files.read(path)
    with pytest.raises(OSError, match="not a regular file"):
        files.make_private(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "nowhere")


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    files.make_private(path := tmp_path / "new")
    assert mode(path) == 0o600 and path.read_bytes() == b""
    (old := tmp_path / "old").write_bytes(b"kept")
    assert mode(old) == 0o666
    files.make_private(old)
    assert mode(old) == 0o600 and old.read_bytes() == b"kept"
    old.chmod(0o400)
    files.make_private(old)
    assert mode(old) == 0o400, "nothing is added"


def test_a_link_to_a_file_that_is_not_there_yet_makes_that_file(tmp_path: Path) -> None:
    (link := tmp_path / "link").symlink_to(tmp_path / "target")
    files.make_private(link)
    assert mode(tmp_path / "target") == 0o600


@pytest.mark.parametrize("make", [True, False])
def test_a_lock_is_waited_for_and_not_for_ever(tmp_path: Path, make: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock" if make else tmp_path
    clock = Clock()
    # Of this module alone: threads that other tests have left behind must not move the clock.
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=clock, sleep=clock.pass_by))
    with files.locked(path, make=make):
        before = clock.now
        with pytest.raises(OSError, match="another process has held its lock for 5 s"), files.locked(path, make=make):
            pass
        assert 5 <= clock.now - before < 6
    with files.locked(path, make=make):
        pass


def test_a_folder_is_locked_through_a_link_and_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "there").symlink_to(tmp_path / "folder")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with files.locked(tmp_path / "there"):
        pass
    with pytest.raises(OSError), files.locked(tmp_path / "link", make=True):
        pass
    with pytest.raises(FileNotFoundError), files.locked(tmp_path / "nowhere"):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_a_file_is_replaced_whole_and_privately_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with files.replaced(path) as aside:
        aside.write_text("first")
        assert not path.exists()
    with pytest.raises(ValueError, match="halfway"), files.replaced(path) as aside:
        aside.write_text("sec")
        raise ValueError("halfway")
    assert (path.read_text(), mode(path)) == ("first", 0o600)
