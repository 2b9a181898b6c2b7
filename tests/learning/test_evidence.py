"""What one request tells of every rung, and the file that keeps it."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain import BudgetLadder, ReasoningBudget
from router.errors import OutcomeFileError
from router.learning import store
from router.learning.evidence import Evidence
from router.learning.store import EvidenceFile

LADDER = BudgetLadder((ReasoningBudget("0", 0), ReasoningBudget("512", 512), ReasoningBudget("default", None)))
shares = st.floats(0, 1)


def evidence(name: str = "d1", **fields: object) -> Evidence:
    inputs = np.linspace(0, 1, 5, dtype=np.float32)
    one = Evidence(name, 1.5, "engine", LADDER, "p", "g", inputs, (0, 512, 900), (False, True, True), (None,) * 3)
    return replace(one, **fields)  # type: ignore[arg-type]


def test_without_a_word_another_answer_may_have_lost_everything() -> None:
    assert evidence().losses() == (1.0, 0.0, 0.0)


@given(shares, shares, st.none() | shares, st.sampled_from(["verifier", "people"]))
def test_no_report_changes_what_a_verifier_found(top: float, other: float, reported: float | None, judge: str) -> None:
    assert evidence(judged=(other, None, top), judge=judge, reported=reported).losses()[0] == top - other


@given(shares, st.none() | shares)
def test_a_report_bounds_what_a_verifier_could_not_say(other: float, reported: float | None) -> None:
    told = evidence(judged=(other, None, None), judge="verifier", reported=reported)
    assert told.losses()[0] == min(1 - other, 1 if reported is None else reported)


@given(shares, shares)
def test_what_a_model_takes_for_a_gain_counts_nothing(top: float, other: float) -> None:
    assert evidence(judged=(other, None, top), judge="judge").losses()[0] == max(0, top - other)


@given(shares)
def test_a_wrong_answer_cannot_be_lost(other: float) -> None:
    judged = evidence(judged=(other, None, 1.0), judge="judge", reported=0.0)
    assert judged.losses(0.2) == (0.0, 0.0, 0.0)


@given(st.floats(0, 0.9))
def test_losses_that_a_judge_does_not_see_are_made_up_for(misses: float) -> None:
    seen = evidence(judged=(0.0, None, 1.0), judge="judge").losses(misses)[0]
    assert seen * (1 - misses) == pytest.approx(1)


@given(st.none() | shares, shares, st.sampled_from(["", "verifier", "judge"]))
def test_a_report_never_raises_a_bound(judged: float | None, quality: float, judge: str) -> None:
    before = evidence(judged=(judged, None, None if judged is None else 1.0), judge=judge)
    after = replace(before, reported=quality)
    assert all(a <= b for a, b in zip(after.losses(), before.losses(), strict=True))


def test_evidence_comes_back_in_its_order_with_what_was_reported(tmp_path: Path) -> None:
    file = EvidenceFile(tmp_path)
    first = evidence("d1")
    second = evidence("d2", judged=(0.5, None, 1.0), judge="judge", kept='{"a": "é"}', tenant="t")
    file.add([first])
    file.add([first, second])  # what is written again, as after a kill, is there once
    file.report("d1", 0.25)
    file.report("d9", 1.0)
    found = list(store.read(tmp_path))
    assert [number for number, _ in found] == [1, found[1][0]] and found[0][0] < found[1][0]
    for (_, one), other in zip(found, (replace(first, reported=0.25), second), strict=True):
        assert (one.inputs == other.inputs).all()
        assert replace(one, inputs=other.inputs) == other
    assert [one.kept for _, one in store.read(tmp_path, texts=False)] == ["", ""]
    file.close()


def test_the_oldest_evidence_goes_and_numbers_are_not_used_again(tmp_path: Path) -> None:
    file = EvidenceFile(tmp_path)
    file.add([evidence(f"d{i}") for i in range(5)])
    assert file.prune(2) == 3 and file.prune(2) == 0
    file.prune(0)
    file.add([evidence("new")])
    assert [number for number, _ in store.read(tmp_path)] == [6]
    file.close()


def test_a_file_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    EvidenceFile(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / store.FILE)) as db, db:
        db.execute("ALTER TABLE evidence DROP COLUMN tenant")
    file = EvidenceFile(tmp_path)
    file.add([evidence("d1", tenant="t")])
    assert [one.tenant for _, one in store.read(tmp_path)] == ["t"]
    file.close()


def test_a_file_that_is_none_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(OutcomeFileError, match=store.FILE.replace(".", "[.]")):
        list(store.read(tmp_path))
    (tmp_path / store.FILE).write_bytes(b"no database" * 100)
    with pytest.raises(OutcomeFileError, match=store.FILE.replace(".", "[.]")):
        EvidenceFile(tmp_path)
