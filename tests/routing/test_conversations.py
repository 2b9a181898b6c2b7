"""Conversations keep their budget, go up where they must, and get the same at every replica."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain import (
    ContentDelta,
    Conversation,
    Decision,
    DecisionSource,
    Escalation,
    FinishReason,
    MaxLoss,
    Message,
    MinQuality,
    OnUnmet,
    Pinned,
    PinnedTurn,
    Prompt,
    Role,
    RouteRequest,
    RoutingOptions,
    Sampling,
    Score,
)
from router.errors import TargetUnmet
from router.events import Decided
from router.ports import Pins
from router.routing.pins import MemoryPins
from router.routing.router import BudgetRouter
from tests.support.fakes import (
    LADDER,
    MODEL,
    RISING,
    TOOL_LOOP,
    FakeBackend,
    FakeClassifier,
    RecordingObserver,
    called,
    completion_of,
    ladder_of,
    policy_of,
    result,
    router_of,
    score_of,
)

TOP = len(LADDER) - 1
TALK = Conversation(MODEL, "default", "talk", LADDER)
FAR = replace(RISING, far=True)
ASK = Message(Role.USER, "ask")
LOOP = (ASK, called("1"), result("1", failed=True))
"""A tool has failed: the next step may go up."""


def request(*turns: Message, **options: object) -> RouteRequest:
    """A turn of the conversation; by default at most 5 % loss is wanted."""
    asked = RoutingOptions(MaxLoss(0.05), conversation_id="talk")
    return RouteRequest(Prompt(turns or (ASK,)), replace(asked, **options), "default", "")  # type: ignore[arg-type]


def pinned_at(index: int, *, stops: bool = False) -> MemoryPins:
    pins = MemoryPins()
    pins.keep(TALK, Pinned(index, stops))
    return pins


async def rungs(router: BudgetRouter, *requests: RouteRequest) -> list[int]:
    return [(await router.decide(one)).choice.index for one in requests]


def scored(score: Score = RISING) -> FakeClassifier:
    return FakeClassifier(score)


async def test_a_conversation_keeps_its_first_rung() -> None:
    pins, classifier = MemoryPins(), scored()
    router = router_of(classifier=classifier, pins=pins)
    first = await router.decide(request())
    assert (first.choice.index, first.source) == (4, DecisionSource.CLASSIFIER)
    assert pins.known(TALK) == Pinned(4)
    again = await router.decide(request(Message(Role.USER, "another")))
    assert (again.choice.index, again.source, again.score, again.escalation) == (4, DecisionSource.PINNED, None, None)
    assert (again.choice.meets_target, again.choice.certificate) == (False, None)


@pytest.mark.parametrize("index", [0, TOP])
async def test_any_rung_is_kept(index: int) -> None:
    decision = await router_of(pins=pinned_at(index)).decide(request())
    assert (decision.choice.index, decision.source) == (index, DecisionSource.PINNED)


async def test_within_a_tool_loop_and_at_the_longest_rung_nothing_is_scored() -> None:
    classifier = scored(FAR)
    assert await rungs(router_of(classifier=classifier, pins=pinned_at(2)), request(*LOOP)) == [2]
    assert await rungs(router_of(classifier=classifier, pins=pinned_at(TOP)), request()) == [TOP]
    assert await rungs(router_of(classifier=classifier, pins=pinned_at(2)), request(max_thinking_tokens=32)) == [2]
    assert not classifier.asked


async def test_a_users_turn_that_is_unlike_the_calibration_prompts_goes_up_for_good() -> None:
    scores = iter((RISING, FAR, RISING, RISING))
    router = router_of(classifier=FakeClassifier(lambda _: next(scores)))
    await router.decide(request())
    unlike = await router.decide(request(Message(Role.USER, "a riddle"), max_thinking_tokens=200))
    assert (unlike.choice.index, unlike.source, unlike.escalation) == (4, DecisionSource.PINNED, None), "it is allowed"
    scores = iter((FAR, RISING))
    unlike = await router.decide(request(Message(Role.USER, "another riddle")))
    assert (unlike.choice.index, unlike.source) == (TOP, DecisionSource.ESCALATED)
    assert (unlike.escalation, unlike.score, unlike.choice.meets_target) == (Escalation.UNLIKE, FAR, True)
    reason = "the prompt is unlike the calibration prompts: the conversation goes up from rung 128"
    assert unlike.choice.reason == reason
    assert await rungs(router, request(Message(Role.USER, "easy again"))) == [TOP]


@pytest.mark.parametrize(("tokens", "index"), [(60, 3), (59, 2), (20, 2), (-1, 2)])
async def test_an_unlike_turn_goes_up_to_what_is_in_time(tokens: int, index: int) -> None:
    late = policy_of().latency.seconds(tokens)  # 60 is the p99 of rung 3; -1 keeps out all of them
    router = router_of(classifier=scored(FAR), pins=pinned_at(2))
    assert await rungs(router, request(max_latency=late)) == [index]


async def test_a_classifier_that_is_down_lets_the_pin_stand() -> None:
    decision = await router_of(classifier=FakeClassifier(failing=True), pins=pinned_at(2)).decide(request())
    assert (decision.choice.index, decision.source) == (2, DecisionSource.PINNED)


async def test_a_classifier_that_is_down_binds_no_new_conversation() -> None:
    pins = MemoryPins()
    decision = await router_of(classifier=FakeClassifier(failing=True), pins=pins).decide(request())
    assert (decision.choice.index, decision.source) == (TOP, DecisionSource.FALLBACK)
    assert pins.known(TALK) is None


async def test_a_failed_tool_takes_the_next_step_up_one_rung_once() -> None:
    observer, pins = RecordingObserver(), pinned_at(2)
    router = router_of(observer=observer, pins=pins)
    assert await rungs(router, request(*LOOP)) == [2], "it is off by default"
    decision = await router.decide(request(*LOOP, escalate=True))
    assert (decision.choice.index, decision.source) == (3, DecisionSource.ESCALATED)
    assert (decision.escalation, decision.score) == (Escalation.TOOL_FAILED, None)
    assert decision.choice.reason == "a tool failed: the conversation goes up from rung 32"
    [*_, seen] = observer.of(Decided)
    assert seen.decision == decision
    again = request(*LOOP, escalate=True)
    more = request(*LOOP, Message(Role.USER, "go on"), escalate=True)
    assert await rungs(router, again, more, again) == [3, 3, 3], "the same round counts once"
    later = (*LOOP, called("2", arguments="[1]"), result("2"))
    assert await rungs(router, request(*later, escalate=True)) == [3], "the round after it went well"


async def test_nothing_changes_within_a_round() -> None:
    router = router_of(pins=pinned_at(2))
    calls = (ASK, called("1", "2", "3"))
    results = [result("2", failed=True), result("1", failed=True), result("3")]
    sent = [request(*calls, *results[:known], escalate=True) for known in range(4)]
    assert await rungs(router, *sent) == [2, 2, 2, 3]


async def test_an_open_round_is_not_left_for_a_user_who_speaks_meanwhile() -> None:
    classifier = scored(FAR)
    router = router_of(classifier=classifier, pins=pinned_at(2))
    assert await rungs(router, request(ASK, called("1", "2"), result("1"), ASK, escalate=True)) == [2]


async def test_a_repeated_call_takes_the_next_step_up() -> None:
    router = router_of(pins=pinned_at(2))
    twice = (ASK, called("1"), result("1"), called("2"), result("2"))
    decision = await router.decide(request(*twice, escalate=True))
    assert (decision.choice.index, decision.escalation) == (3, Escalation.REPEATED_CALL)
    thrice = request(*twice, called("3"), result("3"), escalate=True)
    assert await rungs(router, thrice, thrice) == [4, 4]


@pytest.mark.parametrize(
    ("finish", "index"),
    [
        (FinishReason.TRUNCATED, 3),
        (FinishReason.NO_ANSWER, 3),
        (FinishReason.NATURAL, 2),
        (FinishReason.FORCED, 2),
        (FinishReason.REFUSED, 2),
    ],
)
async def test_after_an_answer_that_was_cut_off_the_next_one_goes_up(finish: FinishReason, index: int) -> None:
    end = completion_of(LADDER.rungs[2], finish=finish)
    router = router_of(
        backend=FakeBackend([ContentDelta("so"), end] if finish is not FinishReason.NO_ANSWER else [end]),
        pins=pinned_at(2),
    )
    asked = request(escalate=True)
    [first, *_] = [event async for event in router.generate(asked, Sampling())]
    assert isinstance(first, Decision) and first.choice.index == 2
    decision = await router.decide(asked)
    assert decision.choice.index == index
    assert decision.escalation is (Escalation.TRUNCATED if index == 3 else None)
    assert await rungs(router, asked) == [index], "it counts once"


async def test_without_the_option_no_cut_answer_is_remembered() -> None:
    pins = pinned_at(2)
    router = router_of(backend=FakeBackend([completion_of(finish=FinishReason.TRUNCATED)]), pins=pins)
    assert [event async for event in router.generate(request(), Sampling())]
    assert pins.known(TALK) == Pinned(2)


async def test_an_answer_cut_within_a_round_counts_once_the_round_is_complete() -> None:
    pins = MemoryPins()
    pins.keep(TALK, Pinned(2, cut=True))
    router = router_of(pins=pins)
    calls = (ASK, called("1", "2"), result("1"))
    assert await rungs(router, *(request(*calls, *more, escalate=True) for more in ([], [result("2")]))) == [2, 3]


@pytest.mark.parametrize(
    ("options", "index"),
    [
        ({}, 3),
        ({"max_thinking_tokens": 63}, 2),
        ({"max_thinking_tokens": 64}, 3),
        ({"max_thinking_tokens": 16}, 1),
        ({"min_thinking_tokens": 200}, TOP),
        ({"min_thinking_tokens": 100}, TOP),
        ({"max_latency": policy_of().latency.seconds(64)}, 3),
        ({"max_latency": policy_of().latency.seconds(63)}, 2),
    ],
    ids=str,
)
async def test_nobody_goes_up_beyond_the_bounds_or_a_deadline(options: dict[str, float], index: int) -> None:
    assert await rungs(router_of(pins=pinned_at(2)), request(*LOOP, escalate=True, **options)) == [index]


async def test_at_the_ceiling_a_round_counts_all_the_same() -> None:
    router = router_of(pins=pinned_at(2))
    within, beyond = (request(*LOOP, escalate=True, max_thinking_tokens=most) for most in (32, None))
    assert await rungs(router, within, beyond) == [2, 2], "the budget does not change for one round"


async def test_a_refusal_is_for_the_first_turn() -> None:
    never = {"target": MinQuality(0.99), "on_unmet": OnUnmet.REJECT}
    with pytest.raises(TargetUnmet):
        await router_of().decide(request(**never))
    assert await rungs(router_of(pins=pinned_at(2)), request(**never)) == [2]


async def test_a_batch_goes_up_step_by_step() -> None:
    router = router_of(pins=pinned_at(0))
    failed = (*TOOL_LOOP[:-1], result("same", failed=True))
    loop = (ASK, *failed, called("a"), result("a", failed=True))
    asked = [request(ASK, *failed, escalate=True), request(*loop, escalate=True)]
    assert [one.choice.index for one in await router.decide_batch(asked)] == [1, 2]


async def test_a_decision_settles_once_and_without_a_conversation_never() -> None:
    settled: list[int] = []

    class Counting(MemoryPins):
        async def settle(self, turns: Sequence[PinnedTurn]) -> list[Pinned | None]:
            settled.append(len(turns))
            return await super().settle(turns)

    router = router_of(pins=Counting())
    alone = replace(request(), options=RoutingOptions(MaxLoss(0.05)))
    for one in (alone, request(rung="64")):
        await router.decide(one)
    await router.decide_batch([alone, alone])
    assert settled == []
    for one in (request(), request(), request(*LOOP, escalate=True)):
        await router.decide(one)
    await router.decide_batch([request(), alone, request()])
    assert settled == [1, 1, 1, 2]


async def test_another_bundle_keeps_the_rungs_of_conversations_on_its_ladder() -> None:
    router = router_of(pins=pinned_at(2))
    served = router.served_model("")
    router.swap(replace(served, bundle=replace(served.bundle, version="another")))
    assert await rungs(router, request()) == [2]


async def test_on_another_ladder_a_position_is_another_rung_so_all_begin_anew() -> None:
    pins, ladder = pinned_at(0), ladder_of(0, 8, 16, 32, 64, 128)
    router = router_of(pins=pins)
    served = router.served_model("")
    router.swap(replace(served, policy=replace(served.policy, ladder=ladder)))
    decision = await router.decide(request())
    assert (decision.source, decision.choice.index) == (DecisionSource.CLASSIFIER, 4)
    assert (pins.known(TALK), pins.known(TALK._replace(ladder=ladder))) == (Pinned(0), Pinned(4))
    router.swap(served)
    assert await rungs(router, request()) == [0], "after a rollback it is as it was"


class Replica:
    """The pins of one replica: it knows what it has seen, and shares the rest unless it is cut off."""

    def __init__(self, common: MemoryPins) -> None:
        self._common = common
        self._near = MemoryPins()
        self.cut_off = False

    def known(self, conversation: Conversation) -> Pinned | None:
        return self._near.known(conversation)

    async def settle(self, turns: Sequence[PinnedTurn]) -> list[Pinned | None]:
        if self.cut_off:
            return await self._near.settle(turns)
        kept = await self._common.settle(turns)
        for turn, pinned in zip(turns, kept, strict=True):
            if pinned is not None:
                self._near.keep(turn.conversation, pinned)
        return kept


def by_words(prompt: Prompt) -> Score:
    """A score that the last user's text names."""
    return {"hard": RISING, "easy": score_of(*[0.9] * 6), "far": FAR}.get(prompt.text, RISING)


def router(pins: Pins) -> BudgetRouter:
    return router_of(classifier=FakeClassifier(by_words), pins=pins)


ASKED = st.sampled_from(["hard", "easy", "far"]).map(lambda text: [Message(Role.USER, text)])


@st.composite
def rounds(draw: st.DrawFn) -> list[Message]:
    """One round, open or complete, that may have failed or repeat another."""
    ids = [f"{draw(st.integers(0, 3))}-{i}" for i in range(draw(st.integers(1, 3)))]
    results = [result(id_, failed=draw(st.booleans())) for id_ in ids]
    return [called(*ids, arguments=draw(st.sampled_from("123"))), *results[: draw(st.integers(0, len(ids)))]]


@st.composite
def histories(draw: st.DrawFn) -> list[RouteRequest]:
    """The requests of one conversation, which grows, and which a caller may send again."""
    said: list[Message] = list(draw(ASKED))
    escalate, most = draw(st.booleans()), draw(st.sampled_from([None, 300, 128, 64]))
    sent = []
    for _ in range(draw(st.integers(1, 8))):
        sent += [request(*said, escalate=escalate, max_thinking_tokens=most)] * draw(st.integers(1, 2))
        said = [*said, *draw(st.one_of(ASKED, rounds()))]
    return sent


@given(histories(), st.lists(st.integers(0, 2), min_size=16, max_size=16))
@settings(max_examples=60)
async def test_all_replicas_decide_alike(history: list[RouteRequest], whose: list[int]) -> None:
    common = MemoryPins()
    replicas = [router(Replica(common)) for _ in range(3)]
    expected = await rungs(router(MemoryPins()), *history)
    got = [(await rungs(replicas[at], one))[0] for one, at in zip(history, whose, strict=False)]
    assert got == expected


@given(histories())
@settings(max_examples=60)
async def test_no_turn_gets_less_than_the_one_before_nor_more_than_is_allowed(history: list[RouteRequest]) -> None:
    got = await rungs(router(MemoryPins()), *history)
    assert got == sorted(got)
    allowed = policy_of().within_bounds(history[0].options)
    assert set(got) <= set(allowed)


@given(histories())
@settings(max_examples=60)
async def test_the_budget_is_the_same_for_all_results_of_a_round(history: list[RouteRequest]) -> None:
    """However many of the results are there, up to the last, and whatever was sent before."""
    asked = router(MemoryPins())
    before = await rungs(asked, *history)
    calls = (*history[-1].prompt.messages, called("x", "y", "z"))
    parts = [result(id_, failed=True) for id_ in "xyz"]
    options = history[-1].options
    sent = [replace(history[-1], prompt=Prompt((*calls, *parts[:known])), options=options) for known in range(3)]
    assert await rungs(asked, *sent) == [before[-1]] * 3


@given(histories(), st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=16, max_size=16))
@settings(max_examples=60)
async def test_replicas_that_lose_sight_of_each_other_go_up_and_meet_again(
    history: list[RouteRequest], fate: list[tuple[int, bool]]
) -> None:
    common = MemoryPins()
    pins = [Replica(common), Replica(common)]
    routers = [router(one) for one in pins]
    last = [0, 0]
    for asked, (at, cut_off) in zip(history, fate, strict=False):
        pins[at].cut_off = cut_off
        [got] = await rungs(routers[at], asked)
        assert got >= last[at], "never less than this replica gave before"
        last[at] = got
    for replica in pins:
        replica.cut_off = False
    end = request(*history[-1].prompt.messages, max_thinking_tokens=history[-1].options.max_thinking_tokens)
    for one in routers:
        await one.decide(end)
    assert len({(await rungs(one, end))[0] for one in routers}) == 1
