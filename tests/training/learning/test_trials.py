"""Tests of policies where several tenants teach: no one of them decides by itself what all get."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bundle.features import VERSION
from router.domain import BudgetLadder, Prompt, ReasoningBudget
from router.learning.evidence import MODEL, PEOPLE, Evidence
from training.certification.betting import DELTA
from training.learning import trials
from training.learning.pieces import Kind, Pieces
from training.learning.tenants import KNOWN, LATELY, balanced
from training.learning.wealth import log_wealth

ALPHA, STREAMS = 0.02, 200
VERIFIER = "verifier"
SHORT, TOP = ReasoningBudget("0", 0), ReasoningBudget("default", None)
KIND = Kind("engine", BudgetLadder((SHORT, TOP)), VERSION, 1)


def pieces(tenants: Sequence[str], losses: Sequence[float], tenant_share: float = 0.5) -> Pieces:
    """Evidence of these tenants, and what the short rung loses on each piece."""
    names, zeros = [f"p{i}" for i in range(len(tenants))], np.zeros(len(tenants))
    inputs, spent = zeros[:, None].astype(np.float32), np.stack([zeros, zeros + 100], axis=1)
    bounds, numbers = np.stack([np.asarray(losses), zeros], axis=1), np.arange(1, len(tenants) + 1)
    prompts = [Prompt.of(name) for name in names]
    return Pieces(KIND, numbers, prompts, names, inputs, bounds, bounds, spent, 1.0, False, list(tenants), tenant_share)


def passes(tenants: Sequence[str], losses: Sequence[float], tenant_share: float = 0.5) -> bool:
    """The short rung is proved to keep the target."""
    return trials.fixed(pieces(tenants, losses, tenant_share)).tested[ALPHA].passed == 1


def mixed(share: float, groups: int, seed: int = 0) -> list[str]:
    """Tenants in a random order, of which "big" sends this share."""
    return ["big" if one < share else "small" for one in np.random.default_rng(seed).random(groups)]


def test_a_flood_of_easy_prompts_certifies_nothing_that_others_lose_by() -> None:
    tenants = mixed(0.95, 4_000)
    losses = [0.0 if one == "big" else 0.2 * (i % 2) for i, one in enumerate(tenants)]  # .1 on average
    assert passes(tenants, losses, tenant_share=1.0), "the requests as they come lose .005"
    assert not passes(tenants, losses)


@pytest.mark.parametrize(("share", "groups", "certified"), [(0.9, 900, False), (0.9, 2_000, True), (0.5, 500, True)])
def test_a_tenant_with_most_of_the_requests_takes_longer(share: float, groups: int, certified: bool) -> None:
    assert passes(mixed(share, groups), [0.0] * groups) == certified


def test_what_is_lost_by_the_tenant_with_most_requests_counts_as_it_comes() -> None:
    tenants = mixed(0.9, 4_000)
    losses = [0.03 if one == "big" else 0.0 for one in tenants]
    assert not passes(tenants, losses), ".027 as they come, though .015 where everybody has half"


def test_one_tenant_and_a_few_requests_of_another_are_tested_as_they_come() -> None:
    alone = ["big"] * 400
    assert passes(alone, [0.0] * 400)
    stray = alone[: -KNOWN + 1] + ["small"] * (KNOWN - 1)
    assert passes(stray, [0.0] * 400) and balanced(stray, np.arange(400), 0.5).all()


def test_a_tenant_that_sends_no_more_holds_up_nobody_for_long() -> None:
    tenants = ["big"] * 500 + ["gone"] * KNOWN + ["big"] * 3 * LATELY
    left = balanced(tenants, np.arange(len(tenants)), 0.5)
    assert not left[:500].any() and left[500:LATELY].sum() < KNOWN and left[-LATELY:].all()
    assert passes(tenants, [0.0] * len(tenants))


def test_small_tenants_count_as_one() -> None:
    random = np.random.default_rng(0)
    small = [f"small {i}" for i in random.integers(400, size=4_000)]
    tenants = [("big", one)[int(random.random() < 0.3)] for one in small]
    left = balanced(tenants, np.arange(4_000), 0.5)
    assert (np.array(tenants)[left] == "big").mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("share", [0.5, 0.3, 0.01])
def test_no_tenant_has_more_than_its_share_of_the_tests_and_they_go_on(share: float) -> None:
    random = np.random.default_rng(0)
    tenants = random.choice(["a", "b", "c"], 3_000, p=[0.6, 0.3, 0.1]).tolist()
    rows = np.flatnonzero(balanced(tenants, np.arange(3_000), share))
    counted = {name: sum(tenants[i] == name for i in rows) for name in "abc"}
    assert max(counted.values()) <= max(share, 1 / 3) * len(rows) + 1
    assert counted["c"] >= 0.9 * tenants.count("c"), "the smallest one is heard whole"


def test_a_policy_that_loses_too_much_in_one_mix_hardly_ever_passes() -> None:
    random, wrong = np.random.default_rng(0), 0
    for seed in range(STREAMS):
        tenants = mixed(0.8, 1_000, seed)
        rates = np.where(np.array(tenants) == "big", 0.01, 0.032)  # .021 where each has half, .0144 as they come
        wrong += passes(tenants, (random.random(1_000) < rates).astype(float).tolist())
    assert wrong / STREAMS <= DELTA


def test_the_requests_wanted_are_those_of_both_tests() -> None:
    few = trials.fixed(pieces(mixed(0.75, 300), [0.0] * 300))
    wanted = few.wanted(ALPHA, 0)
    assert wanted is not None and not few.tested[ALPHA].passed
    groups = 300 + round(1.3 * wanted)
    assert passes(mixed(0.75, groups), [0.0] * groups)


def told(judge: str, top: float, short: float, reported: float | None) -> Evidence:
    """A request of which somebody has judged both answers, and its caller the one that was served."""
    judged = (short, top) if judge else (None, None)
    inputs = np.zeros(1, np.float32)
    return Evidence(
        "d", 0.0, "engine", KIND.ladder, "p", "g", inputs, (0, 100), (False, True), judged, judge, 1, reported
    )


shares = st.floats(0, 1)
reports = st.none() | shares
requests = st.tuples(st.booleans(), st.sampled_from(["", VERIFIER, MODEL, PEOPLE]), shares, shares, reports, reports)


@given(st.lists(requests, min_size=1, max_size=8))
def test_reports_of_one_tenant_take_away_no_more_than_what_nobody_else_has_judged(drawn: list[tuple[Any, ...]]) -> None:
    false, most = [], []
    for lies, judge, top, short, said, lie in drawn:
        honest = told(judge, top, short, said)
        false.append((replace(honest, reported=lie) if lies else honest).losses()[0])
        most.append(0.0 if lies and judge not in (VERIFIER, PEOPLE) else honest.losses()[0])
    capital = [log_wealth(np.array([losses]).T, ALPHA) for losses in (false, most)]
    assert (capital[0] <= capital[1] + 1e-9).all()


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_false_reports_beside_a_verifier_certify_nothing(share: float) -> None:
    tenants = mixed(share, 2_000)
    # Of a hundred answers behind the shorter thought six are worse and three are better.
    verdicts = [(1.0, 0.0) if i % 100 < 6 else (0.0, 1.0) if i % 100 < 9 else (1.0, 1.0) for i in range(2_000)]
    losses = [
        told(VERIFIER, top, short, 0.0 if one == "big" else top).losses()[0]
        for one, (top, short) in zip(tenants, verdicts, strict=True)
    ]
    assert np.mean(losses) == pytest.approx(0.03)
    assert not passes(tenants, losses) and not passes(tenants, losses, tenant_share=1.0)
