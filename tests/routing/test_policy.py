"""Laws of the decision rule."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from router.digits import ROUNDING
from router.domain import (
    BudgetLadder,
    Certificate,
    Choice,
    MaxLoss,
    MinQuality,
    OnUnmet,
    QualityTarget,
    ReasoningBudget,
    ReasoningEffort,
    RoutingOptions,
    Score,
)
from router.errors import InvalidRequest, TargetUnmet
from router.routing import reasons
from router.routing.policy import NEAR_BEST, LatencyProfile, Policy
from tests.support.fakes import (
    CERTIFICATE,
    LADDER,
    LATENCY,
    PER_PROMPT,
    RISING,
    policy_of,
    score_of,
    score_with,
    unforeseen,
)

TOP = len(LADDER) - 1
NESTED = tuple(
    Certificate(alpha, 0.1, threshold, 500) for alpha, threshold in ((0.01, 0.0), (0.05, 0.001), (0.1, 0.01))
)
FULL = replace(policy_of(certificates=NESTED), per_prompt=PER_PROMPT)
ABSOLUTE = (Certificate(alpha=0.1, delta=0.1, threshold=0.88, prompts=500),)

probability = st.floats(0, 1)
by_prompt = probability.map(lambda value: MaxLoss(value, per_prompt=True))
targets = st.one_of(probability.map(MaxLoss), by_prompt, probability.map(MinQuality))
seconds = st.none() | st.floats(0, 5)


@st.composite
def scores(draw: st.DrawFn) -> Score:
    quality = draw(st.lists(probability, min_size=len(LADDER), max_size=len(LADDER)))
    means = sorted(draw(st.lists(st.floats(0, 250), min_size=len(LADDER), max_size=len(LADDER))))
    return score_with(quality, means)


@st.composite
def wishes(draw: st.DrawFn, target: st.SearchStrategy[QualityTarget] = targets) -> RoutingOptions:
    floor = draw(st.integers(0, 300))
    ceiling = draw(st.none() | st.integers(floor, 400))
    unmet = draw(st.sampled_from([OnUnmet.TOP_RUNG, OnUnmet.CHEAPEST_NEAR_BEST]))
    return RoutingOptions(draw(target), floor, ceiling, draw(seconds), unmet)


def promising(quality: float) -> Policy:
    """A policy with a certificate for an absolute target, at the target itself."""
    return replace(policy_of(), absolute=(Certificate(1 - quality, 0.1, quality, 500),))


def tokens(index: int) -> int:
    cap = LADDER.rungs[index].tokens
    assert cap is not None
    return cap


def choose(score: Score, options: RoutingOptions, policy: Policy | None = None) -> Choice:
    try:
        return (policy or FULL).choose(score, options)
    except InvalidRequest:
        assume(False)
        raise


@given(scores(), wishes())
def test_the_rung_lies_within_floor_and_ceiling(score: Score, options: RoutingOptions) -> None:
    chosen = tokens(choose(score, options).index)
    assert options.min_thinking_tokens <= chosen
    assert options.max_thinking_tokens is None or chosen <= options.max_thinking_tokens


@given(scores(), wishes())
def test_a_rung_beyond_the_deadline_is_taken_only_where_all_are_and_said_to_be(
    score: Score, options: RoutingOptions
) -> None:
    choice = choose(score, options)
    expected = score.p99[choice.index]
    if options.max_latency is not None and expected is not None:
        late = LATENCY.seconds(expected) > options.max_latency
        assert late == choice.reason.startswith("every rung allowed breaks the deadline")


@given(scores(), wishes())
def test_the_target_is_met_where_this_prompts_forecast_meets_it(score: Score, options: RoutingOptions) -> None:
    choice = choose(score, options)
    quality, wanted = score.quality[choice.index], options.target.value
    if isinstance(options.target, MaxLoss):
        assert choice.meets_target == (score.quality[TOP] - quality <= wanted + ROUNDING)
    else:
        assert choice.meets_target == (quality >= wanted)


@given(st.floats(0, 1), probability)
def test_without_a_forecast_the_top_rung_alone_meets_a_relative_target(loss: float, quality: float) -> None:
    policy = policy_of()
    assert [policy.foresees(MaxLoss(loss), None, i) for i in range(len(LADDER))] == [False] * TOP + [True]
    assert not any(policy.foresees(MinQuality(quality), None, i) for i in range(len(LADDER)))


@given(scores(), probability)
def test_a_relative_target_picks_the_rung_that_is_worth_most_at_its_price(score: Score, loss: float) -> None:
    policy, options = policy_of(certificates=NESTED), RoutingOptions(MaxLoss(loss))
    choice, certificate = policy.choose(score, options), policy.certificate(MaxLoss(loss))
    if certificate is None:
        assert choice.index == TOP
    else:
        worth = [
            quality - certificate.threshold * mean
            for quality, mean in zip(score.quality, score.mean, strict=True)
            if mean is not None
        ]
        assert worth[choice.index] == max(worth)
        assert all(less < max(worth) for less in worth[: choice.index])


@given(scores(), st.floats(-1, 1), probability)
def test_a_target_per_prompt_picks_the_smallest_rung_that_is_predicted_to_keep_it(
    score: Score, threshold: float, alpha: float
) -> None:
    proof = Certificate(alpha, 0.1, min(threshold, alpha), 500)
    policy = replace(policy_of(), per_prompt=(proof,))
    choice = policy.choose(score, RoutingOptions(MaxLoss(alpha, per_prompt=True)))
    lost = [score.quality[TOP] - quality for quality in score.quality]
    assert choice.certificate == proof and choice.meets_target
    assert choice.index == TOP or lost[choice.index] <= proof.threshold + ROUNDING
    assert all(more > proof.threshold + ROUNDING for more in lost[: choice.index])


@given(scores(), wishes(by_prompt))
def test_what_is_certified_per_prompt_meets_its_target(score: Score, options: RoutingOptions) -> None:
    choice = choose(score, options)
    assert choice.certificate is None or choice.meets_target


@given(scores(), probability)
def test_an_absolute_target_picks_the_smallest_rung_that_reaches_it(score: Score, wanted: float) -> None:
    choice = promising(wanted).choose(score, RoutingOptions(MinQuality(wanted)))
    if max(score.quality) >= wanted:
        assert score.quality[choice.index] >= wanted
        assert all(quality < wanted for quality in score.quality[: choice.index])


@given(scores(), wishes(probability.map(MaxLoss)), probability, probability)
def test_more_loss_allowed_never_costs_a_larger_rung(
    score: Score, options: RoutingOptions, one: float, other: float
) -> None:
    options = replace(options, on_unmet=OnUnmet.TOP_RUNG)
    strict = choose(score, replace(options, target=MaxLoss(min(one, other))))
    loose = choose(score, replace(options, target=MaxLoss(max(one, other))))
    assert loose.index <= strict.index


@given(scores(), probability, probability)
def test_more_quality_wanted_never_gets_a_smaller_rung(score: Score, one: float, other: float) -> None:
    modest = choose(score, RoutingOptions(MinQuality(min(one, other))))
    demanding = choose(score, RoutingOptions(MinQuality(max(one, other))))
    assert modest.index <= demanding.index


@given(scores(), wishes(probability.map(MaxLoss)))
def test_only_the_unconstrained_choice_is_certified(score: Score, options: RoutingOptions) -> None:
    choice = choose(score, options)
    if choice.certificate is not None:
        assert choice.index == choose(score, RoutingOptions(options.target)).index


@given(scores(), wishes())
def test_what_is_certified_loses_no_more_than_asked_on_average(score: Score, options: RoutingOptions) -> None:
    choice = choose(score, options)
    if choice.certificate is not None:
        assert isinstance(options.target, MaxLoss)
        assert choice.certificate.alpha <= options.target.value


@given(scores(), wishes())
def test_every_choice_says_why(score: Score, options: RoutingOptions) -> None:
    assert choose(score, options).reason


@given(scores(), wishes())
def test_the_same_question_gets_the_same_answer(score: Score, options: RoutingOptions) -> None:
    assert choose(score, options) == choose(score, options)


def test_of_equally_good_rungs_the_cheapest_is_picked() -> None:
    flat = score_of(*[0.5] * len(LADDER))
    assert policy_of().choose(flat, RoutingOptions(MaxLoss(0.05))).index == 0
    assert promising(0.5).choose(flat, RoutingOptions(MinQuality(0.5))).index == 0


def test_a_rung_must_buy_more_than_its_price() -> None:
    score = score_of(0.25, 0.5, 0.5, 0.5, 0.5, 0.75)
    for price, index in ((0.0, 5), (0.006, 5), (0.0065, 1), (0.02, 1), (0.025, 0), (1.0, 0)):
        certificate = replace(CERTIFICATE, threshold=price)
        assert policy_of(certificates=[certificate]).choose(score, RoutingOptions(MaxLoss(0.05))).index == index


def test_where_tokens_are_unknown_the_position_of_a_rung_is_its_cost() -> None:
    score = unforeseen(*RISING.quality)
    for price, index in ((0.01, 5), (0.1, 4), (0.16, 3), (0.3, 0)):
        certificate = replace(CERTIFICATE, threshold=price)
        assert policy_of(certificates=[certificate]).choose(score, RoutingOptions(MaxLoss(0.05))).index == index


def test_where_tokens_are_unknown_a_deadline_is_held_to_the_cap() -> None:
    score = unforeseen(*RISING.quality)
    choice = policy_of().choose(score, RoutingOptions(MinQuality(0.65), max_latency=LATENCY.seconds(64)))
    assert (choice.index, choice.meets_target) == (3, True)
    uncapped = policy_of(BudgetLadder((ReasoningBudget("low", None), ReasoningBudget("high", None))))
    choice = uncapped.choose(unforeseen(0.5, 0.9), RoutingOptions(MinQuality(0.4), max_latency=100.0))
    assert (choice.index, choice.certificate) == (0, None)
    assert choice.reason.startswith("every rung allowed breaks the deadline (nothing bounds the time of rung low")


def test_a_relative_target_is_certified() -> None:
    choice = policy_of().choose(RISING, RoutingOptions(MaxLoss(0.05)))
    assert (choice.index, choice.meets_target, choice.certificate) == (4, True, CERTIFICATE)


@pytest.mark.parametrize("certificates", [(), (CERTIFICATE,)])
def test_without_a_certificate_for_the_target_the_top_rung_is_picked(certificates: tuple[Certificate, ...]) -> None:
    choice = policy_of(certificates=certificates).choose(score_of(*[0.9] * len(LADDER)), RoutingOptions(MaxLoss(0.04)))
    assert (choice.index, choice.meets_target, choice.certificate) == (TOP, True, None)


def test_without_a_certificate_a_rung_below_the_top_claims_nothing() -> None:
    choice = policy_of(certificates=()).choose(RISING, RoutingOptions(MaxLoss(0.05), max_thinking_tokens=100))
    assert (choice.index, choice.meets_target, choice.certificate) == (3, False, None)


def test_the_loosest_certificate_within_the_target_is_used() -> None:
    policy = policy_of(certificates=NESTED)
    assert policy.certificate(MaxLoss(0.07)) == NESTED[1]
    assert policy.certificate(MaxLoss(1.0)) == NESTED[2]
    assert policy.certificate(MaxLoss(0.0)) is None


def test_a_floor_moves_the_choice_up_and_takes_the_certificate() -> None:
    choice = policy_of().choose(RISING, RoutingOptions(MaxLoss(0.05), min_thinking_tokens=200))
    assert (choice.index, choice.meets_target, choice.certificate) == (5, True, None)


def test_a_ceiling_that_changes_nothing_leaves_the_certificate() -> None:
    assert policy_of().choose(RISING, RoutingOptions(MaxLoss(0.05), max_thinking_tokens=128)).certificate == CERTIFICATE


def test_an_absolute_target_is_certified_at_its_own_threshold() -> None:
    policy = replace(policy_of(), absolute=ABSOLUTE)
    for wanted in (0.5, 0.9):
        choice = policy.choose(RISING, RoutingOptions(MinQuality(wanted)))
        assert (choice.index, choice.meets_target, choice.certificate) == (5, True, ABSOLUTE[0])
    assert policy.choose(RISING, RoutingOptions(MinQuality(0.9), min_thinking_tokens=200)).certificate == ABSOLUTE[0]


def test_without_a_certificate_an_absolute_target_gets_the_top_rung_whatever_is_predicted() -> None:
    choice = policy_of().choose(RISING, RoutingOptions(MinQuality(0.7)))
    assert (choice.index, choice.meets_target, choice.certificate) == (TOP, True, None)
    stricter = replace(policy_of(), absolute=ABSOLUTE).choose(RISING, RoutingOptions(MinQuality(0.95)))
    assert (stricter.index, stricter.meets_target, stricter.certificate) == (TOP, False, None)
    with pytest.raises(TargetUnmet, match="no certificate for P"):
        policy_of().choose(RISING, RoutingOptions(MinQuality(0.95), on_unmet=OnUnmet.REJECT))


def test_one_rung_may_be_certified_for_every_prompt() -> None:
    fixed = replace(CERTIFICATE, rung=2)
    policy = policy_of(certificates=[fixed])
    for score in (RISING, score_of(1.0, 1.0, 1.0, 1.0, 1.0, 1.0), score_of(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)):
        choice = policy.choose(score, RoutingOptions(MaxLoss(0.05)))
        assert (choice.index, choice.certificate) == (2, fixed)
        assert choice.reason == "certified for every prompt: rung 256 gains too little on average"
    bounded = policy.choose(RISING, RoutingOptions(MaxLoss(0.05), min_thinking_tokens=40))
    assert (bounded.index, bounded.certificate) == (3, None)
    assert policy.choose(replace(RISING, far=True), RoutingOptions(MaxLoss(0.05))).index == TOP


@pytest.mark.parametrize("target", [MaxLoss(0.04), MaxLoss(0.05, per_prompt=True), MinQuality(0.8)])
def test_what_is_not_certified_gets_the_reference_rung(target: QualityTarget) -> None:
    policy = replace(policy_of(), reference=4)
    choice = policy.choose(RISING, RoutingOptions(target))
    assert (choice.index, choice.certificate) == (4, None)
    assert choice.reason.endswith(": rung 128, which was right at least as often as the top rung")
    assert policy.choose(RISING, RoutingOptions(target, max_thinking_tokens=100)).index == 3
    assert policy.choose(RISING, RoutingOptions(target, min_thinking_tokens=200)).index == TOP
    suspended = replace(policy, suspended="an audit").choose(RISING, RoutingOptions(target))
    assert suspended.index == TOP, "an audit found that shorter is worse"


@pytest.mark.parametrize(
    ("floor", "ceiling", "at_fault"), [(257, None, "min"), (257, 300, "min"), (17, 31, "max"), (129, 255, "max")]
)
def test_bounds_that_leave_no_rung_are_refused(floor: int, ceiling: int | None, at_fault: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"options\.{at_fault}_thinking_tokens"):
        policy_of().choose(RISING, RoutingOptions(MaxLoss(0.05), floor, ceiling))


@pytest.mark.parametrize(
    ("effort", "longest"),
    [("none", 0), ("minimal", 2), ("low", 3), ("medium", 4), ("high", TOP), ("xhigh", TOP), ("max", TOP)],
)
def test_an_effort_is_a_ceiling_at_its_share_of_the_ladder(effort: str, longest: int) -> None:
    options = RoutingOptions(MaxLoss(0.05), reasoning_effort=ReasoningEffort(effort))
    assert policy_of().within_bounds(options) == [*range(longest + 1)]


def test_an_effort_is_the_rung_of_its_name_where_there_is_one() -> None:
    ladder = BudgetLadder(tuple(ReasoningBudget(name, None) for name in ("low", "medium", "high", "xhigh")))
    for place, effort in enumerate((ReasoningEffort.LOW, ReasoningEffort.MEDIUM, ReasoningEffort.HIGH)):
        options = RoutingOptions(MaxLoss(0.05), reasoning_effort=effort)
        assert policy_of(ladder).within_bounds(options) == [*range(place + 1)]
    none = RoutingOptions(MaxLoss(0.05), reasoning_effort=ReasoningEffort.NONE)
    assert policy_of(ladder).within_bounds(none) == [0], "no rung of that name: its share of the ladder"


def test_a_floor_above_an_effort_is_refused_and_says_so() -> None:
    options = RoutingOptions(MaxLoss(0.05), 64, reasoning_effort=ReasoningEffort.NONE)
    with pytest.raises(InvalidRequest, match="min_ and max_thinking_tokens and reasoning_effort"):
        policy_of().within_bounds(options)


def test_a_ladder_of_named_efforts_has_no_bounds_to_break() -> None:
    ladder = BudgetLadder((ReasoningBudget("low", None), ReasoningBudget("high", None)))
    assert policy_of(ladder).within_bounds(RoutingOptions(MaxLoss(0.05))) == [0, 1]


@pytest.mark.parametrize("target", [MaxLoss(0.05), MinQuality(0.95)])
def test_reject_refuses_what_is_not_met(target: QualityTarget) -> None:
    with pytest.raises(TargetUnmet):
        policy_of().choose(RISING, RoutingOptions(target, max_thinking_tokens=100, on_unmet=OnUnmet.REJECT))


def test_reject_lets_pass_what_is_met() -> None:
    assert policy_of().choose(RISING, RoutingOptions(MaxLoss(0.05), on_unmet=OnUnmet.REJECT)).meets_target


def test_by_default_an_unmet_target_gets_the_top_rung_allowed() -> None:
    choice = policy_of().choose(RISING, RoutingOptions(MinQuality(0.95), max_thinking_tokens=100))
    assert (choice.index, choice.meets_target) == (3, False)


def test_a_hopeless_prompt_can_be_answered_cheaply() -> None:
    hopeless = score_of(0.01, 0.04, 0.05, 0.06, 0.07, 0.08)
    choice = promising(0.5).choose(hopeless, RoutingOptions(MinQuality(0.5), on_unmet=OnUnmet.CHEAPEST_NEAR_BEST))
    assert (choice.index, choice.meets_target) == (1, False)
    assert hopeless.quality[choice.index] >= max(hopeless.quality) - NEAR_BEST


def test_a_deadline_drops_slow_rungs() -> None:
    limit = LATENCY.seconds(60.0)
    choice = policy_of().choose(RISING, RoutingOptions(MaxLoss(0.05), max_latency=limit))
    assert (choice.index, choice.meets_target, choice.certificate) == (3, False, None)


@pytest.mark.parametrize("unmet", [OnUnmet.TOP_RUNG, OnUnmet.CHEAPEST_NEAR_BEST])
def test_a_deadline_that_no_rung_holds_gets_the_cheapest_allowed(unmet: OnUnmet) -> None:
    choice = policy_of().choose(
        RISING, RoutingOptions(MaxLoss(0.05), min_thinking_tokens=10, max_latency=0.0, on_unmet=unmet)
    )
    assert (choice.index, choice.meets_target, choice.certificate) == (1, False, None)


def test_a_deadline_that_no_rung_holds_can_be_refused() -> None:
    with pytest.raises(TargetUnmet, match="deadline"):
        policy_of().choose(RISING, RoutingOptions(MaxLoss(0.05), max_latency=0.0, on_unmet=OnUnmet.REJECT))


def test_latency_is_first_token_plus_every_token() -> None:
    assert LatencyProfile(0.5, 0.01, 20).seconds(80) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("options", "index"),
    [
        (RoutingOptions(MaxLoss(0.05)), TOP),
        (RoutingOptions(MaxLoss(0.2, per_prompt=True)), TOP),
        (RoutingOptions(MinQuality(0.3), max_thinking_tokens=100), 3),
    ],
)
def test_what_is_suspended_gets_the_longest_rung_that_fits(options: RoutingOptions, index: int) -> None:
    suspended = replace(policy_of(), absolute=ABSOLUTE, per_prompt=PER_PROMPT, suspended="it drifted")
    choice = suspended.choose(RISING, options)
    assert (choice.index, choice.meets_target, choice.certificate) == (index, index == TOP, None)
    assert choice.reason.startswith("it drifted")


FOREIGN_TO_ALL = replace(score_of(*[0.999] * len(LADDER)), far=True)
"""What a classifier says of a prompt unlike all that it was certified on: it is sure, without a reason."""


@pytest.mark.parametrize("per_prompt", [False, True])
@pytest.mark.parametrize("on_unmet", OnUnmet)
def test_a_far_prompt_gets_the_top_rung_which_loses_nothing(on_unmet: OnUnmet, per_prompt: bool) -> None:
    choice = FULL.choose(FOREIGN_TO_ALL, RoutingOptions(MaxLoss(0.05, per_prompt), on_unmet=on_unmet))
    assert (choice.index, choice.meets_target, choice.certificate) == (TOP, True, None)
    assert "unlike the calibration prompts" in choice.reason


def test_of_a_far_prompt_no_quality_is_claimed() -> None:
    policy = replace(policy_of(), absolute=ABSOLUTE)
    for on_unmet in (OnUnmet.TOP_RUNG, OnUnmet.CHEAPEST_NEAR_BEST):
        choice = policy.choose(FOREIGN_TO_ALL, RoutingOptions(MinQuality(0.5), on_unmet=on_unmet))
        assert (choice.index, choice.meets_target, choice.certificate) == (TOP, False, None)
    with pytest.raises(TargetUnmet, match="unlike the calibration prompts"):
        policy.choose(FOREIGN_TO_ALL, RoutingOptions(MinQuality(0.5), on_unmet=OnUnmet.REJECT))


@pytest.mark.parametrize(
    "bounds", [{"max_thinking_tokens": 64}, {"max_latency": LATENCY.seconds(60.0)}], ids=["ceiling", "deadline"]
)
def test_within_its_bounds_a_far_prompt_gets_the_longest_rung(bounds: dict[str, Any]) -> None:
    options = RoutingOptions(MaxLoss(0.05), **bounds)
    choice = policy_of().choose(FOREIGN_TO_ALL, options)
    assert (choice.index, choice.meets_target, choice.certificate) == (3, False, None)
    with pytest.raises(TargetUnmet, match="unlike the calibration prompts"):
        policy_of().choose(FOREIGN_TO_ALL, replace(options, on_unmet=OnUnmet.REJECT))


def test_bounds_of_just_a_rung_leave_that_rung() -> None:
    for index in range(1, len(LADDER)):
        just = RoutingOptions(MaxLoss(0.05), min_thinking_tokens=tokens(index), max_thinking_tokens=tokens(index))
        assert policy_of().within_bounds(just) == [index]
    assert policy_of().within_bounds(RoutingOptions(MaxLoss(0.05), min_thinking_tokens=1)) == [1, 2, 3, 4, 5]
    assert policy_of().within_bounds(RoutingOptions(MaxLoss(0.05), max_thinking_tokens=0)) == [0]


def test_a_named_effort_lies_within_any_floor_and_no_ceiling() -> None:
    ladder = BudgetLadder((ReasoningBudget("0", 0), ReasoningBudget("high", None)))
    assert policy_of(ladder).within_bounds(RoutingOptions(MaxLoss(0.05), min_thinking_tokens=200)) == [1]
    assert policy_of(ladder).within_bounds(RoutingOptions(MaxLoss(0.05), max_thinking_tokens=200)) == [0]


def test_a_deadline_of_just_the_latency_is_held() -> None:
    limit = LATENCY.seconds(40.0)  # the p99 of the third rung
    assert policy_of().affordable(RISING, RoutingOptions(MaxLoss(0.05), max_latency=limit)) == [0, 1, 2]


def test_what_is_not_dearer_than_near_the_best_is_cheap_enough() -> None:
    options = RoutingOptions(MinQuality(1.0), on_unmet=OnUnmet.CHEAPEST_NEAR_BEST)
    policy = promising(1.0)
    assert policy.choose(score_of(0.25, 0.5, 0.5, 0.5, 0.5, 0.5 + NEAR_BEST), options).index == 1
    assert policy.choose(score_of(0.25, 0.4, 0.5, 0.5, 0.5, 0.54), options).index == 2
    assert policy.choose(score_of(0.25, 0.4, 0.5, 0.5, 0.5, 0.56), options).index == 5


def test_an_absolute_certificate_holds_for_what_its_alpha_leaves() -> None:
    policy = replace(policy_of(), absolute=ABSOLUTE)
    assert policy.certificate(MinQuality(0.9)) == ABSOLUTE[0], "although 1 - .9 is less than .1 in binary"
    assert policy.certificate(MinQuality(0.901)) is None
    chosen = policy.choose(score_of(0.1, 0.3, 0.5, 0.88, 0.9, 0.95), RoutingOptions(MinQuality(0.9)))
    assert (chosen.index, chosen.certificate) == (3, ABSOLUTE[0])
    floored = policy.choose(
        score_of(0.1, 0.3, 0.5, 0.88, 0.9, 0.95), RoutingOptions(MinQuality(0.9), min_thinking_tokens=100)
    )
    assert (floored.index, floored.meets_target, floored.certificate) == (4, True, None)
    assert Policy(LADDER, (), LATENCY).certificate(MaxLoss(1.0)) is None


HELD = LATENCY.seconds(60.0)
"""A deadline that the rung "64" holds, and no longer one."""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            RoutingOptions(MaxLoss(0.05)),
            "rung 256 is predicted to gain 0.050 P(correct), too little for 10 more tokens",
        ),
        (
            RoutingOptions(MaxLoss(0.2, per_prompt=True)),
            "the smallest rung that is predicted to lose at most 0.2",
        ),
        (
            RoutingOptions(MaxLoss(0.06, per_prompt=True)),
            "no shorter rung is predicted to lose at most 0.02, up to which forecasts are certified for the target of "
            "0.06: the top rung, which loses nothing",
        ),
        (
            RoutingOptions(MaxLoss(0.2, per_prompt=True), max_thinking_tokens=32),
            "no rung allowed is predicted to lose at most 0.2: the longest within max_thinking_tokens",
        ),
        (
            RoutingOptions(MaxLoss(0.2, per_prompt=True), min_thinking_tokens=100),
            "the target asks for rung 64, which is below min_thinking_tokens: the next longer one, which no "
            "certificate covers",
        ),
        (
            RoutingOptions(MaxLoss(0.04, per_prompt=True)),
            "no certificate for a loss of 0.04 per prompt (there are some for 0.05, 0.2): the top rung",
        ),
        (RoutingOptions(MaxLoss(0.04)), "no certificate for a loss of 0.04 (there are some for 0.05): the top rung"),
        (
            RoutingOptions(MaxLoss(0.04), max_thinking_tokens=64),
            "no certificate for a loss of 0.04 (there are some for 0.05): the longest within max_thinking_tokens",
        ),
        (
            RoutingOptions(MaxLoss(0.05), max_thinking_tokens=64),
            "the target asks for rung 128, which is above max_thinking_tokens: the longest within max_thinking_tokens",
        ),
        (
            RoutingOptions(MaxLoss(0.05), min_thinking_tokens=200),
            "the target asks for rung 128, which is below min_thinking_tokens: the next longer one, which no "
            "certificate covers",
        ),
        (
            RoutingOptions(MaxLoss(0.05), max_latency=HELD),
            "the target asks for rung 128, which is too slow: the longest in time (rung 128 may take 1 s, the "
            "deadline leaves 0.8 s)",
        ),
        (
            RoutingOptions(MinQuality(0.85), max_latency=HELD),
            "no rung allowed reaches P(correct) 0.880, from which on forecasts are certified for the target of 0.85: "
            "the longest in time (rung 128 may take 1 s, the deadline leaves 0.8 s)",
        ),
        (
            RoutingOptions(MinQuality(0.85)),
            "the smallest rung that reaches P(correct) 0.880, from which on forecasts are certified for the target of "
            "0.85",
        ),
        (RoutingOptions(MinQuality(0.88)), "the smallest rung that reaches P(correct) 0.880"),
        (
            RoutingOptions(MinQuality(0.95)),
            "no certificate for P(correct) of 0.95 (there are some for 0.9): the top rung",
        ),
        (
            RoutingOptions(MaxLoss(0.05), max_latency=0.01),
            "every rung allowed breaks the deadline (rung 0 may take 0.2 s, the deadline leaves 0.01 s): the shortest",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_reason_says_what_the_rule_did(options: RoutingOptions, reason: str) -> None:
    assert replace(policy_of(), absolute=ABSOLUTE, per_prompt=PER_PROMPT).choose(RISING, options).reason == reason


def test_a_rung_may_have_to_gain_something() -> None:
    policy = replace(policy_of(), per_prompt=(Certificate(0.05, 0.1, -0.05, 500),))
    options = RoutingOptions(MaxLoss(0.05, per_prompt=True))
    better = policy.choose(score_of(0.5, 0.9, 0.5, 0.5, 0.5, 0.6), options)
    assert (better.index, better.meets_target) == (1, True)
    assert better.reason == (
        "the smallest rung that is predicted to gain at least 0.05 over the top one, from which on forecasts are "
        "certified for the target of 0.05"
    )
    equal = policy.choose(score_of(*[0.5] * len(LADDER)), options)
    assert (equal.index, equal.certificate) == (TOP, policy.per_prompt[0])
    assert equal.reason.endswith(": the top rung, which loses nothing")


def test_a_refusal_says_what_the_deadline_keeps_out() -> None:
    options = RoutingOptions(MaxLoss(0.05), on_unmet=OnUnmet.REJECT, max_latency=HELD)
    with pytest.raises(TargetUnmet, match=r"too slow \(rung 128 may take 1 s, the deadline leaves 0\.8 s\)"):
        policy_of().choose(RISING, options)


def test_nothing_is_said_to_be_gained_where_the_top_rung_is_no_better() -> None:
    for score in (score_of(*[0.5] * len(LADDER)), score_of(0.5, 0.5, 0.5, 0.5, 0.5, 0.498)):
        reason = policy_of().choose(score, RoutingOptions(MaxLoss(0.05))).reason
        assert reason == "rung 256 is predicted to gain nothing"


def test_a_certified_choice_may_lose_more_on_one_prompt_than_on_average_and_says_so() -> None:
    steep = score_with((0.5, 0.5, 0.5, 0.5, 0.5, 0.6), (0, 10, 20, 30, 40, 50))
    choice = policy_of(certificates=[replace(CERTIFICATE, threshold=0.01)]).choose(steep, RoutingOptions(MaxLoss(0.05)))
    assert (choice.index, choice.certificate is not None, choice.meets_target) == (0, True, False)
    assert choice.reason.endswith(
        "gain 0.100 P(correct), too little for 50 more tokens; the loss of 0.05 is promised on average over prompts, "
        "not for this one"
    )


def test_tokens_that_round_to_the_same_are_less_than_one_more() -> None:
    score = replace(RISING, mean=(0.0, 16.0, 32.0, 64.0, 99.6, 100.4))
    assert "too little for less than 1 more token" in reasons.worth(score, 4, "256", MaxLoss(0.1))
