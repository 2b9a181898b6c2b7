"""A request that was answered before gets the same decision again, without being read, unless anything has a say."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace

import pytest

from router._gen import budget_router_pb2 as pb
from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.identity import Call
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenant, Tenants
from router.domain import Completion, Decision, DecisionSource, MaxLoss, OnUnmet, RouteRequest, RoutingOptions, Score
from router.events import Decided
from router.routing.chooser import Chooser
from router.routing.explain import Explainer
from router.routing.router import BudgetRouter
from router.rpc.repeats import LONGEST
from router.rpc.servicer import BudgetRouterServicer
from router.stopping.rules import AgreeRule, StoppingCertificate
from tests.rpc.conftest import decide, user
from tests.support.fakes import (
    FOREIGN_BUNDLE,
    LIMITS,
    MODEL,
    TENANT,
    VERSION,
    DictCache,
    FakeClassifier,
    ListLog,
    RecordingObserver,
    policy_of,
    request_of,
    router_of,
)

SECRET = "the patient is called Rosencrantz"


class CountingCache(DictCache):
    """Counts look-ups: a request that is decided takes one."""

    lookups = 0

    async def get_many(self, keys: Sequence[bytes]) -> list[Score | None]:
        self.lookups += 1
        return await super().get_many(keys)


class AskedLog(ListLog):
    """Keeps the requests, too."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[RouteRequest] = []

    def record(self, request: RouteRequest, decision: Decision, completion: Completion | None) -> None:
        super().record(request, decision, completion)
        self.asked.append(request)


class Asking:
    """A servicer of fakes, and what it looks up."""

    def __init__(self, router: BudgetRouter | None = None) -> None:
        self.cache, self.log, self.observer = CountingCache(), AskedLog(), RecordingObserver()
        self.router = router or router_of(cache=self.cache, log=self.log, observer=self.observer)
        self._servicer = BudgetRouterServicer(self.router, Explainer(self.router, self.log), LIMITS)

    async def __call__(self, request: pb.DecideRequest | None = None, tenant: str | None = None) -> pb.Decision:
        data = (request or decide()).SerializeToString()
        return pb.DecideResponse.FromString(await self._servicer.Decide(data, Call(tenant))).decision


async def test_the_third_answer_is_the_second_one_under_another_id() -> None:
    ask = Asking()
    request = decide(messages=[pb.Message(role=pb.ROLE_SYSTEM, content="be brief"), *user(SECRET)], model=MODEL)
    first, second, third, fourth = [await ask(request) for _ in range(4)]
    assert ask.cache.lookups == 2
    assert [one.source for one in (first, second)] == [pb.DECISION_SOURCE_CLASSIFIER, pb.DECISION_SOURCE_CACHE]
    assert len({one.decision_id for one in (first, second, third, fourth)}) == 4
    for one in (third, fourth):
        one.decision_id = second.decision_id
        assert one == second


async def test_repeated_decisions_are_logged_and_observed_like_all_others() -> None:
    ask = Asking()
    ids = [(await ask(decide(SECRET))).decision_id for _ in range(4)]
    assert [decision.id for _, decision in ask.log.decided] == ids
    assert ask.log.asked == [ask.log.asked[0]] * 4
    assert [(record.tenant, record.decision.id) for record in ask.observer.of(Decided)] == [
        (TENANT, id_) for id_ in ids
    ]


async def test_a_repeated_decision_is_observed_within_its_call() -> None:
    """Where the span of the call is the current one."""
    ask, call, seen = Asking(), ContextVar("call", default=0), []
    ask.router.decider._observer = lambda record: seen.append(call.get())
    for number in range(1, 5):
        call.set(number)
        await ask()
    assert seen == [1, 2, 3, 4]


async def test_places_where_a_rule_could_stop_the_thought_are_repeated() -> None:
    stopping = (StoppingCertificate(0.05, 0.1, AgreeRule(0, 1), 400, 12.0, 6.0),)
    ask = Asking()
    ask.router.swap(replace(ask.router.served_model(""), policy=replace(policy_of(), stopping=stopping)))
    answers = [await ask() for _ in range(3)]
    assert ask.cache.lookups == 2
    assert [list(one.checkpoints) for one in answers] == [["0", "16", "32", "64", "128"]] * 3


async def test_no_text_is_remembered() -> None:
    ask = Asking()
    for _ in range(3):
        await ask(decide(SECRET))
    answers = list(ask._servicer._repeats._answers.items())
    assert answers and "Rosencrantz" not in repr(answers)


async def test_others_are_decided() -> None:
    ask = Asking()
    for _ in range(3):
        await ask()
    seen = ask.cache.lookups
    await ask(decide("2 + 3 ="))
    await ask(decide(options=pb.RoutingOptions(max_loss=0.2)))
    await ask(tenant=TENANT)  # by credentials; the others named themselves, or nobody
    assert ask.cache.lookups == seen + 3
    long = decide("x" * LONGEST)
    for _ in range(3):
        await ask(long)
    assert ask.cache.lookups == seen + 6


Change = Callable[[Asking], Awaitable[None] | None]


def swapped(ask: Asking) -> None:
    """As a promotion, a rollback and a candidate in the shadow do."""
    ask.router.swap(replace(ask.router.served_model(""), policy=policy_of(certificates=())))


CHANGES: Mapping[str, Change] = {
    "another bundle": swapped,
    "certificates suspended": lambda ask: ask.router.suspend(MODEL, VERSION),
    "scores flushed": lambda ask: ask.cache.flush(),
    "tenants replaced": lambda ask: ask.router.decider._tenants.replace({TENANT: Tenant(relax=0.1)}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_whatever_changes_has_a_say_at_once(change: Change) -> None:
    ask = Asking()
    for _ in range(3):
        await ask()
    if (waiting := change(ask)) is not None:
        await waiting
    await ask()
    assert ask.cache.lookups == 3


async def test_a_decision_that_changes_overtook_is_not_remembered() -> None:
    ask = Asking()
    await ask()
    lookup = ask.cache.get_many

    async def overtaken(keys: Sequence[bytes]) -> list[Score | None]:
        found = await lookup(keys)
        ask.router.suspend(MODEL, VERSION)
        return found

    ask.cache.get_many = overtaken  # type: ignore[method-assign]
    await ask()
    seen = ask.cache.lookups
    await ask()
    assert ask.cache.lookups == seen + 1


def relaxing() -> BudgetRouter:
    tenants = Tenants({TENANT: Tenant(relax=0.1)})
    router = router_of(admission=Admission(tenants, FairQueue(1e9, 1), MemoryQuotas(), RecordingObserver()))
    router.decider._tenants.replace({TENANT: Tenant(relax=0.1)})
    return router


def teaching() -> BudgetRouter:
    router = router_of()
    router.decider._chooser = Chooser(0.0, 0.2)
    return router


TARGET = MaxLoss(0.05)
SAYS: Mapping[str, tuple[Callable[[], BudgetRouter], RoutingOptions]] = {
    "exploration": (lambda: router_of(explored=0.5), RoutingOptions(TARGET)),
    "learning's share": (teaching, RoutingOptions(TARGET)),
    "brownout": (relaxing, RoutingOptions(TARGET)),
    "a conversation's pin": (router_of, RoutingOptions(TARGET, conversation_id="talk")),
    "a named rung": (router_of, RoutingOptions(TARGET, rung="64")),
    "an engine that the bundle is not about": (lambda: router_of(bundle=FOREIGN_BUNDLE), RoutingOptions(TARGET)),
    "a classifier that fails": (
        lambda: router_of(classifier=FakeClassifier(failing=True)),
        RoutingOptions(TARGET),
    ),
    "a cache that fails": (lambda: router_of(cache=DictCache(failing=True)), RoutingOptions(TARGET)),
}


@pytest.mark.parametrize(("router", "options"), SAYS.values(), ids=SAYS.keys())
async def test_what_else_has_a_say_is_asked_each_time(
    router: Callable[[], BudgetRouter], options: RoutingOptions
) -> None:
    decider, request = router().decider, request_of(options=options)
    for _ in range(3):
        assert not decider.repeats(request, await decider.decide(request))


@pytest.mark.parametrize(
    "options",
    [
        RoutingOptions(TARGET),
        RoutingOptions(TARGET, max_latency=0.5),
        RoutingOptions(TARGET, min_thinking_tokens=16, max_thinking_tokens=64),
        RoutingOptions(MaxLoss(0.05, per_prompt=True), on_unmet=OnUnmet.CHEAPEST_NEAR_BEST),
    ],
)
async def test_what_the_request_says_by_itself_is_repeated(options: RoutingOptions) -> None:
    log = ListLog()
    decider, request = router_of(log=log).decider, request_of(options=options)
    first, second, third = [await decider.decide(request) for _ in range(3)]
    assert not decider.repeats(request, first) and decider.repeats(request, second)
    assert decider.again(request, second) == replace(third, id=log.decided[-1][1].id)
    assert third.source is DecisionSource.CACHE
