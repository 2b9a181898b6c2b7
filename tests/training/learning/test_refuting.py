"""Bets against what was certified: how often they are wrong, how soon they are right, and what they count."""

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from router.bundle import manifest, refuted, registry
from router.domain import BudgetLadder
from router.learning import store
from router.learning.evidence import MODEL, PEOPLE, Evidence
from router.learning.store import EvidenceFile
from router.outcomes.e_process import DELTA
from tests.conftest import MODELS
from tests.support.lessons import lessons, recorded
from tests.support.synthetic import few_steps
from tests.training.learning.conftest import ALPHA, PROMPTS, Learned, learning
from training.arrays import Matrix, Rows, Vector
from training.export import reissue
from training.learning import reading, refuting
from training.learning.anew import Anew
from training.learning.bundles import LEARNED
from training.learning.reading import REPORT_SECONDS
from training.learning.refuting import ENTRY, entries, log_wealth

STREAMS, PIECES = 400, 2_000
TARGETS = np.array([ALPHA, 0.05])


def first_alarm(losses: Matrix, targets: Vector = TARGETS[:1]) -> float:
    """Pieces until the alarm; infinite where there is none."""
    wealth = log_wealth(losses, targets, entries(np.arange(1, len(losses) + 1), oldest=0))
    found = np.flatnonzero(wealth >= -np.log(DELTA))
    return float(found[0] + 1) if len(found) else np.inf


def drawn(random: np.random.Generator, pieces: int, *rates: float) -> Matrix:
    """Losses [pieces, certificates] of 0 and 1 at these rates."""
    return np.asarray(random.random((pieces, 1)) < np.array(rates), float)


@pytest.mark.parametrize("rates", [(ALPHA,), (ALPHA, 0.05)])
def test_what_holds_is_hardly_ever_refuted_however_long_one_looks(rates: tuple[float, ...]) -> None:
    random = np.random.default_rng(0)
    alarms = [first_alarm(drawn(random, PIECES, *rates), TARGETS[: len(rates)]) for _ in range(STREAMS)]
    assert np.isfinite(alarms).mean() <= DELTA


@pytest.mark.parametrize(("rate", "most"), [(0.05, 800), (0.1, 300), (0.2, 130)])
def test_what_does_not_hold_any_more_is_refuted_also_after_long_good_times(rate: float, most: int) -> None:
    random, alarms = np.random.default_rng(1), []
    for _ in range(100):
        both = np.concatenate([drawn(random, PIECES, ALPHA / 2), drawn(random, 3_000, rate)])
        alarms.append(first_alarm(both) - PIECES)
    assert np.median(alarms) <= most


def looked_at(random: np.random.Generator, settled_only: bool) -> bool:
    """True if a look refutes what holds, where a tenth of the answers count as lost until a report comes much later."""
    losses, disputed = drawn(random, PIECES, 0.015), drawn(random, PIECES, 0.1)
    places = np.arange(PIECES)[:, None]
    for look in range(200, PIECES + 1, 200):
        fresh = (disputed > 0) & (places > look - 600)
        known = np.where(fresh, 0.0 if settled_only else 1.0, losses)
        if np.isfinite(first_alarm(known[:look])):
            return True
    return False


def test_losses_that_reports_will_lower_refute_nothing_and_would_if_they_counted() -> None:
    random = np.random.default_rng(2)
    assert np.mean([looked_at(random, settled_only=True) for _ in range(200)]) <= DELTA
    assert np.mean([looked_at(random, settled_only=False) for _ in range(20)]) > DELTA


losses_of_two = arrays(float, (120, 2), elements=st.floats(-1, 1.25))


@given(losses_of_two, losses_of_two)
def test_a_loss_that_is_settled_later_never_lowers_the_capital(one: Matrix, other: Matrix) -> None:
    entered = entries(np.arange(1, 121), oldest=0)
    less = log_wealth(np.minimum(one, other), TARGETS, entered)
    assert np.isfinite(less).all() and (log_wealth(one, TARGETS, entered) >= less - 1e-9).all()


def test_gamblers_keep_their_shares_when_evidence_is_pruned_or_says_nothing() -> None:
    every = np.arange(1, 6 * ENTRY)
    whole = entries(every, oldest=0)
    assert 0 < whole.sum() < 1 and np.flatnonzero(whole).tolist() == [0, *range(ENTRY, 6 * ENTRY - 1, ENTRY)]
    for gone in (1, ENTRY - 1, ENTRY, ENTRY + 1, 3 * ENTRY):
        left = entries(every[gone:], oldest=gone + 1)
        assert left == pytest.approx(whole[gone:])
    few: Rows = every[2 * ENTRY + 7 :: 20]  # who would have entered before enters at the next piece
    assert entries(few, oldest=0).sum() == pytest.approx(whole.sum())


@pytest.fixture
def folder(learned: Learned, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learned.folder, tmp_path / "learning"))


def later(name: str, count: int, *, lost: bool, **about: Any) -> Iterator[Evidence]:
    """Evidence of prompts not seen before, of whose answers below the top all or none are lost."""
    for i, one in enumerate(lessons(range(count), PROMPTS)):
        below, named = len(one.same) - 1, f"{name} {i}"
        same, judged = (*[not lost] * below, True), (*[float(not lost)] * below, 1.0)
        told: dict[str, Any] = {"decision_id": named, "group": named, "same": same, "judged": judged}
        yield replace(one, **told | about)


def write(folder: Path, evidence: Iterable[Evidence]) -> None:
    file = EvidenceFile(folder)
    file.add(list(evidence))
    file.close()


def current(folder: Path) -> str:
    return registry.history(folder / "registry")[-1]


def test_evidence_after_the_promotion_refutes_what_no_longer_holds(folder: Path) -> None:
    trainer, version = learning(folder, act=True), current(folder)
    write(folder, later("good", 20, lost=False))
    assert not trainer.watch()
    write(folder, later("bad", 60, lost=True))
    assert not learning(folder).watch(), "without --act it only reports"
    assert trainer.watch() and refuted.digests(folder / "registry") == [version]
    for _ in range(2):  # the second look begins nothing
        seen = trainer.look()
        assert (seen.state, seen.evidence.pieces, seen.model_version) == ("waiting", 0, "")
        assert version[:12] in seen.began and seen.promoted == (version,)
        assert not trainer.watch()


def test_a_look_alone_refutes_and_begins_anew(folder: Path) -> None:
    write(folder, later("bad", 60, lost=True))
    seen = learning(folder, act=True).look()
    assert seen.state == "waiting" and refuted.digests(folder / "registry") == [current(folder)]


def test_what_is_learned_anew_takes_the_place_of_what_was_refuted(folder: Path) -> None:
    trainer, version = learning(folder, act=True), current(folder)
    write(folder, later("bad", 60, lost=True))
    trainer.look()
    write(folder, later("anew", 260, lost=False))
    with few_steps():
        seen = trainer.look()
    assert seen.state == "serving" and current(folder) == seen.model_version != version
    assert seen.promoted == (version, seen.model_version)


def test_groups_that_were_seen_before_do_not_bet(folder: Path) -> None:
    seen = [one.group for _, one in store.read(folder)]
    old = [replace(one, group=group) for one, group in zip(later("bad", 60, lost=True), seen, strict=False)]
    write(folder, old)
    assert not learning(folder, act=True).watch()


def test_a_bundle_that_comes_back_is_tested_from_where_it_was(folder: Path) -> None:
    (kept,) = (folder / "rounds").glob("*.json")
    version, began = current(folder), Anew.read(kept)
    write(folder, later("good", 1, lost=False))
    registry.promote(folder / "registry", MODELS / "pocket-router")  # an operator's, and back
    assert learning(folder).look().model_version == ""
    registry.rollback(folder / "registry")
    assert learning(folder).look().model_version == version
    assert began is not None and version in began.promoted and Anew.read(kept) == began


def test_a_bundle_of_an_operator_is_left_to_the_audit(folder: Path, tmp_path: Path) -> None:
    bundle = registry.locate(folder / "registry")
    own = manifest.load(bundle).manifest
    metrics = {name: value for name, value in own.metrics.items() if name != LEARNED}
    reissue(bundle, replace(own, metrics=metrics), tmp_path / "own")
    registry.promote(folder / "registry", tmp_path / "own")
    trainer = learning(folder, act=True)
    assert trainer.look().promoted == (registry.history(folder / "registry")[0],)
    write(folder, later("bad", 60, lost=True))
    assert not trainer.watch()


@pytest.mark.parametrize(
    ("others", "about", "counts"),
    [
        ({}, {}, True),
        ({"reported": 1.0}, {}, False),
        ({"reported": 1.0}, {"reported": 1.0}, True),
        ({"reported": 1.0}, {"at": time.time() - REPORT_SECONDS - 1}, True),
        ({"judge": PEOPLE}, {}, False),
        ({"judge": MODEL}, {"judge": MODEL}, True),
        ({"judge": MODEL}, {"judge": MODEL, "spent_tokens": 0}, False),
        ({"judge": MODEL, "reported": 1.0}, {"judge": MODEL}, False),
        # No report changes what people found, so nobody waits for one.
        ({"judge": PEOPLE, "reported": 1.0}, {"judge": PEOPLE, "judged": (0.0,) * 5 + (1.0,)}, True),
    ],
)
def test_a_loss_counts_once_those_have_spoken_who_usually_do(
    tmp_path: Path, others: dict[str, Any], about: dict[str, Any], counts: bool
) -> None:
    rungs = len(recorded(1)[0].ladder)
    plain = {"at": time.time(), "judge": "", "judged": (None,) * rungs}
    write(tmp_path, later("others", 1, lost=False, **plain | others))
    write(tmp_path, later("new", 1, lost=True, **plain | about))
    found = reading.read(tmp_path).pieces
    assert found is not None and bool(found.settled_losses[1].any()) is counts
    assert found.losses[1].any()


@pytest.mark.parametrize(
    ("judge", "age", "least"),
    [(PEOPLE, 0.0, -1.0), (PEOPLE, REPORT_SECONDS + 1, 0.0), (MODEL, 0.0, 0.0), ("", 0.0, 0.0)],
)
def test_what_is_under_way_counts_as_the_best_that_it_may_turn_out_to_be(
    tmp_path: Path, judge: str, age: float, least: float
) -> None:
    at = time.time() - age
    write(tmp_path, later("judged", 1, lost=False, at=at, judge=judge))
    write(tmp_path, later("under way", 1, lost=True, at=at, judge=judge, spent_tokens=0))
    found = reading.read(tmp_path).pieces
    assert found is not None and found.losses[1, 0] == 1
    assert found.settled_losses[1].tolist() == [least] * (len(found.kind.ladder) - 1) + [0.0]


def test_another_ladder_says_nothing_of_a_bundle(folder: Path) -> None:
    bundle = manifest.load(registry.locate(folder / "registry"))
    write(folder, later("bad", 60, lost=True))
    found = reading.read(folder).pieces
    assert found is not None and refuting.refuted(found, bundle, PROMPTS, oldest=1)
    shorter = replace(found.kind, ladder=BudgetLadder(found.kind.ladder.rungs[1:]))
    assert not refuting.refuted(replace(found, kind=shorter), bundle, PROMPTS, oldest=1)
    assert not refuting.refuted(found, bundle, found.numbers[-1], oldest=1)
