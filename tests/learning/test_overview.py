"""How far learning has come, from the files of a folder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from router.errors import ArtifactError, OutcomeFileError
from router.events import Decided
from router.learning import overview, status, store
from router.learning.overview import Overview
from router.learning.status import Counts, Round, Saving, Status, Target
from router.learning.tally import FEWEST, Saved
from router.learning.traffic import LessonCount, Traffic
from tests.learning.test_evidence import evidence
from tests.learning.test_people import written
from tests.learning.test_traffic import TOP, generated, served
from tests.support.fakes import TENANT, VERSION, decision_of

LEARNING = Status(
    "certified",
    "rung 256 keeps .02",
    1_700_000_000.25,
    "vllm/m",
    ("0", "256", "default"),
    0.02,
    0.1,
    Counts(300, 250, 4, 200, 60, 10, 30, 3, 0.5),
    120.0,
    (Round(0, 0, 250, 0.03, 3, 3, 40.0), Round(1, 200, 50, 0.03, 12, 3, 4.5)),
    (
        Target(0.01, Saving(0.2, 0.1, 0.3, 90.0), wanted=60),
        Target(0.02, Saving(0.312, 0.241, 0.38, 120.0), 0, 1, 250, 0),
        Target(0.05, Saving(0.5, 0.4, 0.6, 200.0), 1, None, 50, 0),
        Target(0.005),
    ),
    84_120,
    VERSION,
    "the engine is another one: was vllm/n",
    ("an earlier one", VERSION),
)
"""A status with every field."""

LESSONS = LessonCount("learned", 304), LessonCount("unfinished", 40), LessonCount("busy", 6)

WHOLE = Overview(
    "act", 3_000, 304, LEARNING, Saved(1e6, 0.9e6, 1.1e6, 4e6, 2_500, 130), "an audit has alarmed", LESSONS
)
"""An overview with every field."""


def test_an_overview_comes_back_from_plain_types() -> None:
    assert Overview.of(json.loads(json.dumps(WHOLE.to_json()))) == WHOLE
    with pytest.raises(ValueError, match="mode"):
        Overview.of({"mode": "dancing"})


def test_requests_and_hours_until_a_certificate_follow_from_the_rate_so_far() -> None:
    strict, certified, _, hidden = LEARNING.targets
    assert WHOLE.requests_until(strict) == 600, "ten requests have brought a piece of evidence"
    assert WHOLE.hours_until(strict) == 0.5
    assert WHOLE.requests_until(certified) == 0 == WHOLE.hours_until(certified)
    assert WHOLE.requests_until(hidden) is None is WHOLE.hours_until(hidden)
    idle = replace(WHOLE, learning=replace(LEARNING, pieces_an_hour=0.0, evidence=Counts()))
    assert idle.requests_until(strict) is None is idle.hours_until(strict)


async def test_a_folder_is_read_as_far_as_there_is_anything(tmp_path: Path) -> None:
    assert overview.read(tmp_path) == Overview("unspecified")
    written(tmp_path, evidence("d1"), evidence("d2"))
    assert overview.read(tmp_path) == Overview("unspecified", evidence=2)
    counting = Traffic(tmp_path, "observe")
    counting(Decided(TENANT, decision_of(), 0.1))
    await counting.write()
    (tmp_path / status.FILE).write_text(json.dumps(LEARNING.to_json()))
    assert overview.read(tmp_path) == Overview("observe", 1, 2, LEARNING)


async def test_what_is_saved_adds_up_over_all_bundles_that_were_learned_here(tmp_path: Path) -> None:
    counting = Traffic(tmp_path, "act")
    for version in (*LEARNING.promoted, "an operator's"):
        for index, tokens in [(TOP, 90), (0, 10)] * FEWEST:
            one = replace(served(index, 0.5), model_version=version)
            counting(generated(one, tokens))
    await counting.write()
    (tmp_path / status.FILE).write_text(json.dumps(LEARNING.to_json()))
    saved = overview.read(tmp_path).saved
    assert saved is not None and (saved.requests, saved.drawn) == (4 * FEWEST, 2 * FEWEST)
    assert saved.tokens == pytest.approx(2 * FEWEST * 80)


def test_files_of_something_else_are_named(tmp_path: Path) -> None:
    (tmp_path / store.FILE).write_text("no database, but long enough to be taken for one " * 30)
    with pytest.raises(OutcomeFileError, match=store.FILE):
        overview.read(tmp_path)
    (tmp_path / store.FILE).unlink()
    (tmp_path / status.FILE).write_text("{}")
    with pytest.raises(ArtifactError, match=status.FILE):
        overview.read(tmp_path)
