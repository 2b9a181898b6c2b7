"""How many outcomes of a log can be retrained from, and why the others cannot."""

from pathlib import Path

import pytest

from router.domain import DecisionSource, LabelSource, Outcome
from router.outcomes.sqlite import SqliteOutcomes
from tests.support.fakes import RecordingObserver, completion_of, decision_of, request_of
from tests.support.pages import ROOT
from training.data.errors import DatasetError
from training.data.labels import FEWEST, NEEDED, require_labels
from training.evaluation import logged_traffic


async def log_of(path: Path, *, texts: bool, completed: int, decided: int = 0, named: int = 0) -> str:
    """A log of labelled decisions: with a completion, without, and of rungs that the caller named."""
    log = SqliteOutcomes(path, RecordingObserver(), texts=texts)
    for i in range(completed + decided + named):
        source = DecisionSource.OVERRIDE if i >= completed + decided else DecisionSource.CLASSIFIER
        log.record(request_of(), decision_of(f"d{i}", source=source), None)
        if not completed <= i < completed + decided:
            log.record(request_of(), decision_of(f"d{i}", source=source), completion_of())
        await log.report(Outcome(f"d{i}", 1.0, LabelSource.USER))
    await log.close()
    return str(path)


async def test_only_outcomes_that_can_be_used_are_counted_and_the_others_named(tmp_path: Path) -> None:
    log = await log_of(tmp_path / "log", texts=True, completed=1, decided=3, named=2)
    with pytest.raises(DatasetError) as refused:
        require_labels(log)
    assert str(refused.value) == (
        "1 outcome of the log can be used, about 833 are needed to retrain; left out: 3 without a completion and its "
        "thinking tokens (Generate logs one, Decide alone does not); 2 not the policy's choice"
    )


async def test_a_log_without_texts_says_which_setting_keeps_them(tmp_path: Path) -> None:
    log = await log_of(tmp_path / "log", texts=False, completed=2)
    with pytest.raises(DatasetError, match=r"^0 outcomes .* 2 without the prompt's text \(.*LOG_PROMPTS=true\)$"):
        require_labels(log)


async def test_what_is_counted_is_what_retraining_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.labels.FEWEST", 2)
    log = await log_of(tmp_path / "log", texts=True, completed=2, decided=1)
    require_labels(log)
    from training.data.log import read

    decision = decision_of()
    assert len(logged_traffic.read(read(log), decision.ladder, decision.backend)) == 2


@pytest.mark.parametrize("page", ["README.md", "docs/learning.md", "docs/glossary.md", "docs/adoption.md"])
def test_the_pages_name_the_number_that_the_refusal_names(page: str) -> None:
    """An effective sample of 500 takes 833 outcomes, as three fifths of them judge."""
    assert (FEWEST, NEEDED) == (500, 833)
    assert f"{NEEDED} outcomes" in (ROOT / page).read_text().replace("**", "")
