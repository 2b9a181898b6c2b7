"""A registry names the bundles whose certificates no longer count."""

from pathlib import Path

import pytest

from router.bundle import refuted
from router.errors import ArtifactError


def test_what_is_refuted_stays_so_and_is_named_once(tmp_path: Path) -> None:
    assert refuted.digests(tmp_path) == []
    for version in ("a", "b", "a"):
        refuted.add(tmp_path, version)
    assert refuted.digests(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[" * 100_000])
def test_a_record_of_something_else_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / refuted.FILE).write_text(text)
    for use in (lambda: refuted.digests(tmp_path), lambda: refuted.add(tmp_path, "a")):
        with pytest.raises(ArtifactError, match=refuted.FILE):
            use()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="none"):
        refuted.add(tmp_path / "none", "a")
