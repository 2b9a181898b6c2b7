"""The status of learning, as the trainer writes it and others read it."""

import json
from pathlib import Path

import pytest

from router.errors import ArtifactError
from router.learning import status
from router.learning.status import Counts, Round, Saving, Status, Target

KNOWN = Status(
    "certified",
    "learned",
    5.5,
    "engine",
    ("0", "default"),
    0.02,
    0.1,
    Counts(3, 2, 1, 1, 1, 0, 1),
    12.5,
    (Round(1, 200, 180, 0.03, 12, 3, 4.5),),
    (Target(0.02, Saving(0.3, 0.2, 0.4, 120.0), 1, None, 180, 0), Target(0.01)),
    900,
)


def test_a_status_comes_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / status.FILE).write_text(json.dumps(KNOWN.to_json()))
    assert status.read(tmp_path) == KNOWN


def test_before_a_trainer_has_run_there_is_none(tmp_path: Path) -> None:
    assert status.read(tmp_path) is None


def test_another_file_is_named_in_an_error(tmp_path: Path) -> None:
    (tmp_path / status.FILE).write_text('{"state": "dancing"}')
    with pytest.raises(ArtifactError, match=status.FILE):
        status.read(tmp_path)


def test_the_target_is_the_one_at_which_a_bundle_is_promoted() -> None:
    assert KNOWN.target.saving == Saving(0.3, 0.2, 0.4, 120.0)
    assert Status("waiting", "", 0.0, max_loss=0.05).target == Target(0.05)
