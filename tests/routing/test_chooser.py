"""Which rung a request gets: the caller's, the policy's, or one to learn from."""

import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from router.domain import (
    Decision,
    DecisionSource,
    Enforcement,
    MaxLoss,
    MinQuality,
    OnUnmet,
    Pinned,
    QualityTarget,
    RoutingOptions,
    Score,
)
from router.errors import InvalidRequest, NotFound, TargetUnmet
from router.routing.chooser import Chooser
from router.routing.exploration import certain, propensities
from router.routing.policy import Policy
from router.routing.served_model import ServedModel
from router.scoring.cache_key import ScoreKeys
from router.scoring.scorer import Scored, Scorer
from tests.support.fakes import (
    BUNDLE,
    CERTIFICATE,
    FINGERPRINT,
    LADDER,
    MODEL,
    PROMISING,
    RISING,
    VERSION,
    DictCache,
    FakeBackend,
    FakeClassifier,
    RecordingObserver,
    policy_of,
    request_of,
)

TOP = len(LADDER) - 1
FRESH = Scored(RISING, DecisionSource.CLASSIFIER)
FAILED = Scored(None, DecisionSource.FALLBACK)


def served(policy: Policy | None = None, model: str = MODEL) -> ServedModel:
    scorer = Scorer(FakeClassifier(), ScoreKeys(b"secret", VERSION, LADDER), DictCache(), RecordingObserver())
    return ServedModel(model, BUNDLE, policy or PROMISING, scorer, FakeBackend(), Enforcement.NATIVE, FINGERPRINT)


def fixed(chooser: Chooser, options: RoutingOptions) -> Decision | None:
    return chooser.fixed(served(), request_of(options=options))


def chosen(
    chooser: Chooser, options: RoutingOptions, score: Score | None = RISING, tenant: str = "default"
) -> Decision:
    return chooser.chosen(served(), request_of(options=options, tenant=tenant), replace(FRESH, score=score))


@pytest.mark.parametrize("index", range(len(LADDER)))
def test_the_caller_may_name_any_rung(index: int) -> None:
    decision = fixed(Chooser(), RoutingOptions(MaxLoss(0.05), rung=LADDER.rungs[index].name))
    assert decision is not None
    assert (decision.choice.index, decision.choice.meets_target, decision.choice.certificate) == (
        index,
        index == TOP,
        None,
    )
    assert (decision.source, decision.score) == (DecisionSource.OVERRIDE, None)
    assert decision.propensities == certain(len(LADDER), index)


def test_a_rung_that_is_unknown_or_out_of_bounds_is_refused() -> None:
    with pytest.raises(NotFound, match=r"options\.rung: not on the ladder: 0, 16, 32, 64, 128, 256"):
        fixed(Chooser(), RoutingOptions(MaxLoss(0.05), rung="17"))
    for options in (RoutingOptions(MaxLoss(0.05), 17, rung="16"), RoutingOptions(MaxLoss(0.05), 0, 15, rung="16")):
        with pytest.raises(InvalidRequest, match="outside min_ and max_thinking_tokens"):
            fixed(Chooser(), options)
    within = fixed(Chooser(), RoutingOptions(MaxLoss(0.05), 16, 16, rung="16"))
    assert within is not None and within.choice.index == 1


def test_who_names_nothing_is_decided_by_score() -> None:
    assert fixed(Chooser(), RoutingOptions(MaxLoss(0.05))) is None
    assert fixed(Chooser(), RoutingOptions(MaxLoss(0.05), conversation_id="talk")) is None
    decision = chosen(Chooser(), RoutingOptions(MaxLoss(0.05)))
    assert (decision.choice.index, decision.choice.certificate, decision.score) == (4, CERTIFICATE, RISING)
    assert (decision.source, decision.propensities) == (DecisionSource.CLASSIFIER, certain(len(LADDER), 4))


def test_a_decision_says_what_it_rests_on() -> None:
    options = RoutingOptions(MinQuality(0.7), target_relaxation=0.03)
    decision = chosen(Chooser(), options)
    assert (decision.model, decision.backend, decision.ladder) == (MODEL, FINGERPRINT, LADDER)
    assert (decision.model_version, decision.target) == (VERSION, MinQuality(0.7))
    assert decision.target_relaxation == 0.03


@pytest.mark.parametrize(("target", "meets"), [(MaxLoss(0.05), True), (MinQuality(0.5), False)], ids=str)
def test_of_a_top_rung_without_a_forecast_no_quality_is_claimed(target: QualityTarget, meets: bool) -> None:
    pinned = Chooser().kept(served(), request_of(options=RoutingOptions(target)), Pinned(TOP))
    named = fixed(Chooser(), RoutingOptions(target, rung="256"))
    failed = chosen(Chooser(), RoutingOptions(target), score=None)
    assert [decision and decision.choice.meets_target for decision in (pinned, named, failed)] == [meets] * 3


@pytest.mark.parametrize(("ceiling", "index"), [(None, TOP), (100, 3), (0, 0)])
def test_without_a_score_the_longest_rung_allowed_is_taken(ceiling: int | None, index: int) -> None:
    options = RoutingOptions(MaxLoss(0.05), max_thinking_tokens=ceiling, conversation_id="talk")
    decision = Chooser(explored=1.0).chosen(served(), request_of(options=options), FAILED)
    assert (decision.choice.index, decision.choice.meets_target) == (index, index == TOP)
    assert (decision.source, decision.choice.certificate) == (DecisionSource.FALLBACK, None)


def test_what_the_caller_refuses_is_refused() -> None:
    with pytest.raises(TargetUnmet):
        chosen(Chooser(), RoutingOptions(MinQuality(0.95), on_unmet=OnUnmet.REJECT))


def test_a_share_of_the_requests_thinks_longer_to_learn() -> None:
    chooser, options = Chooser(explored=0.5), RoutingOptions(MinQuality(0.65))
    decisions = [chosen(chooser, options) for _ in range(400)]
    expected = propensities(len(LADDER), 3, list(range(len(LADDER))), 0.5)
    assert {decision.propensities for decision in decisions} == {expected}
    explored = [decision for decision in decisions if decision.source is DecisionSource.EXPLORE]
    assert 130 <= len(explored) <= 270
    assert {decision.choice.index for decision in explored} == {4, 5}
    assert all(decision.choice.meets_target and decision.choice.certificate is None for decision in explored)
    kept = Counter(decision.choice.index for decision in decisions if decision.source is DecisionSource.CLASSIFIER)
    assert set(kept) == {3}


def test_only_what_is_allowed_and_no_conversation_is_explored() -> None:
    chooser = Chooser(explored=1.0)
    bounded = [chosen(chooser, RoutingOptions(MinQuality(0.65), max_thinking_tokens=128)) for _ in range(50)]
    assert {decision.choice.index for decision in bounded} <= {3, 4}
    late = policy_of().latency.seconds(60.0)  # the p99 of the rung "64"
    in_time = [chosen(chooser, RoutingOptions(MinQuality(0.3), max_latency=late)) for _ in range(50)]
    assert {decision.choice.index for decision in in_time} <= {1, 2, 3}
    talks = [chosen(chooser, RoutingOptions(MinQuality(0.65), conversation_id=str(i))) for i in range(50)]
    assert {decision.source for decision in talks} == {DecisionSource.CLASSIFIER}


def test_without_exploration_every_decision_is_certain() -> None:
    decisions = [chosen(Chooser(), RoutingOptions(MinQuality(0.65))) for _ in range(50)]
    assert {decision.propensities for decision in decisions} == {certain(len(LADDER), 3)}


def test_ids_grow_with_time_and_are_never_the_same() -> None:
    chooser = Chooser()
    before = time.time_ns() // 1_000_000
    ids = [chosen(chooser, RoutingOptions(MaxLoss(0.05))).id for _ in range(100)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 100 and {len(id_) for id_ in ids} == {32}
    times = [int(id_, 16) >> 80 for id_ in ids]
    assert before <= times[0] and times[-1] <= after
    assert all(one <= other for one, other in pairwise(times))
    assert len({int(id_, 16) & ((1 << 80) - 1) for id_ in ids}) == 100


TEACHING = Chooser(teaching=0.5)


def drawn(options: RoutingOptions, chooser: Chooser = TEACHING, scored: Scored = FRESH) -> list[Decision]:
    request = request_of(options=options)
    return [chooser.taught(served(), request, chooser.chosen(served(), request, scored)) for _ in range(64)]


def test_a_share_gets_the_top_rung_to_learn_from_whatever_the_policy_chooses() -> None:
    found = drawn(RoutingOptions(MaxLoss(0.05)))
    top = [one for one in found if one.teaches]
    assert 8 < len(top) < 56
    assert {(one.choice.index, one.source, one.choice.certificate) for one in top} == {
        (TOP, DecisionSource.EXPLORE, None)
    }
    assert {one.choice.index for one in found if not one.teaches} == {4}
    assert {one.propensities for one in found} == {tuple(0.5 * (i in (4, TOP)) for i in range(len(LADDER)))}


def test_teaching_beside_exploration_has_the_chances_of_both() -> None:
    explored = propensities(len(LADDER), 4, list(range(len(LADDER))), 0.2)
    for one in drawn(RoutingOptions(MaxLoss(0.05)), Chooser(0.2, teaching=0.5)):
        expected = [0.5 * chance + 0.5 * (i == TOP) for i, chance in enumerate(explored)]
        assert one.propensities == pytest.approx(expected) and sum(one.propensities) == pytest.approx(1)
        assert one.propensity == pytest.approx(expected[one.choice.index])


@pytest.mark.parametrize(
    "options",
    [
        {"max_latency": 1e6},
        {"max_latency": 1.0, "latency_of_call": True},
        {"max_thinking_tokens": 128},
        {"min_thinking_tokens": 16},
    ],
)
def test_what_the_caller_asks_for_is_not_given_up_to_learn(options: dict[str, Any]) -> None:
    assert not any(one.teaches for one in drawn(RoutingOptions(MaxLoss(0.05), **options)))


def test_what_no_score_has_decided_is_not_sent_up_to_learn() -> None:
    assert not any(one.teaches for one in drawn(RoutingOptions(MaxLoss(0.05)), scored=FAILED))
    conversation = request_of(options=RoutingOptions(MaxLoss(0.05), conversation_id="c"))
    kept = TEACHING.kept(served(), conversation, Pinned(3))
    assert {TEACHING.taught(served(), conversation, kept) for _ in range(64)} == {kept}
