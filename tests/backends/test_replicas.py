"""Several replicas: spread, affinity, and what becomes of those that fail."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

import pytest

from router.backends import canary
from router.backends.connect import Connection, connect
from router.backends.http import Timeouts
from router.backends.replica import AWAY_SECONDS, LONGEST_AWAY, Replica
from router.backends.replicas import TRIES, Replicas
from router.circuit_breaker import FAILURES, Breaker
from router.domain import (
    Completion,
    ContentDelta,
    GenerationEvent,
    GenerationRequest,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    Sampling,
)
from router.errors import (
    BackendBusy,
    BackendError,
    BackendMisconfigured,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    BackendUnreachable,
    InvalidRequest,
)
from router.events import Degraded, EngineBack, EngineLost
from router.ports import Backend
from tests.support.fakes import (
    UNAVAILABLE,
    FakeBackend,
    Hang,
    RecordingObserver,
    Script,
    completion_of,
    router_of,
    until,
    verified,
)
from tests.support.fakes import request_of as route_request
from tests.support.simulators import MODEL, simulated

UNREACHABLE = BackendUnreachable("backend: nothing listens")


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def replicas_of(
    *backends: FakeBackend,
    clock: Clock | None = None,
    observer: RecordingObserver | None = None,
    hedge_after: float | None = None,
) -> Replicas:
    clock = clock or Clock()
    members = [
        Replica(f"r{i}", await verified(backend), Breaker(AWAY_SECONDS, LONGEST_AWAY, clock))
        for i, backend in enumerate(backends)
    ]
    return Replicas(members, observer or RecordingObserver(), hedge_after)


def request_of(session: str | None = None, tokens: float = 10.0) -> GenerationRequest:
    budget = ReasoningBudget("64", 64)
    return GenerationRequest(Prompt.of("2 + 2 ="), budget, 0, Sampling(), expected_tokens=tokens, session=session)


def chosen(replicas: Replicas, session: str) -> str:
    replica = replicas._chosen(session, replicas._replicas)
    assert replica is not None
    return replica.name


async def run(backend: Backend, request: GenerationRequest) -> None:
    async with aclosing(backend.stream(request)) as events:
        async for _ in events:
            pass


async def test_the_replica_with_fewer_predicted_tokens_is_taken() -> None:
    busy, idle = FakeBackend(delay=0.01), FakeBackend()
    replicas = await replicas_of(busy, idle)
    replicas._replicas[0].tokens = 1_000
    for _ in range(20):
        await run(replicas, request_of())
    assert (len(busy.asked), len(idle.asked)) == (0, 20)


async def test_work_is_spread_about_evenly() -> None:
    backends = [FakeBackend(delay=0.002) for _ in range(4)]
    replicas = await replicas_of(*backends)
    await asyncio.gather(*(run(replicas, request_of()) for _ in range(200)))
    counts = [len(backend.asked) for backend in backends]
    assert sum(counts) == 200 and min(counts) > 35, counts
    assert all((r.tokens, r.streams) == (0, 0) for r in replicas._replicas)


async def test_a_conversation_stays_and_only_those_of_a_lost_replica_move() -> None:
    clock, backends = Clock(), [FakeBackend() for _ in range(3)]
    replicas = await replicas_of(*backends, clock=clock)
    first = {f"s{i}": chosen(replicas, f"s{i}") for i in range(60)}
    assert all(chosen(replicas, session) == name for session, name in first.items())
    assert min(Counter(first.values()).values()) > 8
    for _ in range(FAILURES):
        replicas._replicas[0].breaker.failed()
    moved = {session: chosen(replicas, session) for session in first}
    assert {session for session in first if moved[session] != first[session]} == {
        session for session, name in first.items() if name == "r0"
    }


async def test_a_replica_that_cannot_be_reached_is_left_out_then_tried_with_one_request() -> None:
    clock, bad, good = Clock(), FakeBackend([UNREACHABLE]), FakeBackend(delay=0.01)
    replicas = await replicas_of(bad, good, clock=clock)
    for _ in range(40):
        await run(replicas, request_of())
    assert 1 <= len(bad.asked) <= FAILURES
    alone = Replicas([replicas._replicas[0]], RecordingObserver())
    while replicas._replicas[0].breaker.allows():
        replicas._replicas[0].breaker.failed()
    before = len(bad.asked)
    clock.now += AWAY_SECONDS
    with pytest.raises(BackendUnavailable):
        await run(alone, request_of())
    assert len(bad.asked) == before + 1
    assert not replicas._replicas[0].allows, "it stays away"


async def test_whatever_a_request_does_it_counts_once() -> None:
    """Its three tries are not three failures: an engine that restarts would be left out after one caller."""
    [replica] = (replicas := await replicas_of(FakeBackend([UNREACHABLE])))._replicas
    for requests in range(1, FAILURES + 1):
        assert replica.allows
        with pytest.raises(BackendUnavailable):
            await run(replicas, request_of())
        assert replica.breaker.failures == requests
    assert not replica.allows, "nobody need find out what three have found out"


POISON = Prompt.of("poison")


class Poisoned(FakeBackend):
    """Fails every request whose prompt begins with "poison"; answers the others."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self._failure = failure or BackendUnavailable("backend: HTTP 500")

    def _script(self, request: GenerationRequest) -> Script:
        return [self._failure] if request.prompt.text.startswith("poison") else super()._script(request)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second attempt follows without its wait, which is of random length."""
    monkeypatch.setattr("random.uniform", lambda least, most: least)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("replica_count", [1, 2, 3])
@pytest.mark.parametrize("failure", [BackendUnavailable("backend: HTTP 500"), BackendError("backend: nonsense")])
async def test_nobody_is_refused_for_what_others_asked(failure: Exception, replica_count: int) -> None:
    """One prompt again and again, many prompts, from one tenant or from several: the replica cannot tell them apart."""
    engines = [Poisoned(failure) for _ in range(replica_count)]
    replicas = await replicas_of(*engines)
    for number in range(8):
        for text in ("poison", f"poison {number}"):
            with pytest.raises(BackendError):
                await run(replicas, replace(request_of(), prompt=Prompt.of(text)))
        await run(replicas, request_of())
        await run(replicas, request_of("a conversation"))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("replica_count", [1, 2])
async def test_not_even_when_nobody_else_has_asked_for_long(replica_count: int) -> None:
    replicas = await replicas_of(*[Poisoned() for _ in range(replica_count)])
    for number in range(6 * FAILURES):
        with pytest.raises(BackendUnavailable):
            await run(replicas, replace(request_of(), prompt=Prompt.of(f"poison {number}")))
    await run(replicas, request_of())


async def test_a_doubted_replica_is_asked_where_no_other_is_left() -> None:
    bad, good = FakeBackend([BackendError("nonsense")]), FakeBackend()
    replicas = await replicas_of(bad, good)
    doubted, trusted = replicas._replicas
    doubted.doubts = FAILURES
    trusted.tokens = 1_000
    for session in (None, *map(str, range(8))):
        await run(replicas, request_of(session))
    assert (len(bad.asked), len(good.asked)) == (0, 9)
    trusted.breaker.trip()
    with pytest.raises(BackendError, match="nonsense"):
        await run(replicas, request_of())


async def test_the_health_check_finds_out_what_doubts_are_worth() -> None:
    """By a generation of the router's own, for which no caller's prompt is to blame."""
    engine = Poisoned()
    [replica] = (replicas := await replicas_of(engine))._replicas
    for _ in range(FAILURES):
        with pytest.raises(BackendUnavailable):
            await run(replicas, replace(request_of(), prompt=POISON))
    assert not replica.trusted
    assert await replicas.ready()
    assert replica.trusted and replica.allows and engine.asked[-1].prompt.text == "2 + 2 ="
    asked = len(engine.asked)
    assert await replicas.ready() and len(engine.asked) == asked, "a trusted engine is not asked again"


async def test_an_engine_that_is_lost_and_its_return_are_each_reported_once() -> None:
    observer = RecordingObserver()
    replicas = await replicas_of(engine := FakeBackend(), observer=observer)
    [replica] = replicas._replicas
    for engine.is_ready in (True, False, False, True, True):
        assert await replicas.ready() == engine.is_ready
    lost, back = observer.records
    assert isinstance(lost, EngineLost) and lost.engine == replica.name and lost.error
    assert back == EngineBack(replica.name)


class Failing(FakeBackend):
    """Fails its health check, and every generation, with `cause`."""

    cause: BackendError | None = None

    async def check_ready(self) -> None:
        if self.cause is not None:
            raise self.cause


REFUSED_KEY = BackendMisconfigured("backend: it refuses the key, or wants one (HTTP 401)", "key")


async def test_of_a_lost_engine_the_present_cause_is_reported_and_named() -> None:
    """It restarted, and came back with another key: that it cannot be reached is no longer true."""
    observer, engine = RecordingObserver(), Failing()
    replicas = await replicas_of(engine, observer=observer)
    for engine.cause in (UNREACHABLE, UNREACHABLE, REFUSED_KEY, REFUSED_KEY, None):
        assert await replicas.ready() == (engine.cause is None)
        if engine.cause is not None:
            said = "cannot be reached" if engine.cause is UNREACHABLE else "refuses the router's key"
            with pytest.raises(BackendUnavailable, match=f"the engine {said}"):
                await run(replicas, request_of())
    first, then, back = observer.records
    assert first == EngineLost("r0", str(UNREACHABLE)) and then == EngineLost("r0", str(REFUSED_KEY))
    assert back == EngineBack("r0")


async def test_of_several_lost_engines_one_that_refuses_the_key_is_named() -> None:
    away, refusing = Failing(), Failing()
    replicas = await replicas_of(away, refusing)
    away.cause, refusing.cause = UNREACHABLE, REFUSED_KEY
    assert not await replicas.ready()
    with pytest.raises(BackendUnavailable, match="none of the 2 engines can be used, and one of them refuses the"):
        await run(replicas, request_of())


async def test_an_engine_that_lists_its_models_without_a_key_is_lost_because_of_the_key() -> None:
    observer = RecordingObserver()
    replicas = await replicas_of(FakeBackend([REFUSED_KEY]), observer=observer)
    [replica] = replicas._replicas
    replica.doubts = FAILURES
    assert not await replicas.ready()
    assert observer.records == [EngineLost("r0", str(REFUSED_KEY))]
    with pytest.raises(BackendUnavailable, match="refuses the router's key"):
        await run(replicas, request_of())


@pytest.mark.parametrize("failure", [UNAVAILABLE, BackendError("nonsense")])
async def test_a_doubted_replica_that_fails_everything_is_left_out_until_it_does_not(failure: Exception) -> None:
    engine = FakeBackend([failure])
    [replica] = (replicas := await replicas_of(engine))._replicas
    replica.doubts = FAILURES
    assert not await replicas.ready()
    with pytest.raises(BackendUnavailable, match="the engine cannot be reached"):
        await run(replicas, request_of())
    engine._scripts = []
    assert await replicas.ready()
    await run(replicas, request_of())


class Listing(FakeBackend):
    """Lists its models, or takes too long to; fails every generation while `failing`."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.failing = False, False

    async def check_ready(self) -> None:
        if self.slow:
            raise BackendTimeout("backend: it took too long")

    def _script(self, request: GenerationRequest) -> Script:
        return [BackendTimeout("backend: it took too long")] if self.failing else super()._script(request)


async def test_an_engine_that_lists_its_models_while_its_generations_fail_is_doubted() -> None:
    """Health checks come between the failures, and clear none of them."""
    sick, sound = Listing(), FakeBackend()
    replicas = await replicas_of(sick, sound)
    doubted, other = replicas._replicas
    sick.failing = True
    for failures in range(1, FAILURES + 1):
        other.tokens = 1_000
        with pytest.raises(BackendTimeout):
            await run(Replicas([doubted], RecordingObserver()), request_of())
        assert doubted.doubts == failures
        if failures < FAILURES:
            assert await replicas.ready() and doubted.doubts == failures
    assert await replicas.ready() and not doubted.allows, "it has failed the router's own generation"
    sick.failing = False
    assert await replicas.ready() and doubted.allows and doubted.trusted


async def test_a_health_check_that_takes_too_long_raises_a_doubt_and_refuses_nobody() -> None:
    engine = Listing()
    [replica] = (replicas := await replicas_of(engine))._replicas
    engine.slow = True
    for checks in range(1, FAILURES):
        assert await replicas.ready()
        assert (replica.doubts, engine.asked) == (checks, [])
    await run(replicas, request_of())
    assert replica.doubts == 0, "an answer clears them"


async def test_an_engine_too_slow_to_list_its_models_is_left_out_once_it_fails_a_generation() -> None:
    engine = Listing()
    [replica] = (replicas := await replicas_of(engine))._replicas
    engine.slow = True
    for _ in range(3 * FAILURES):
        assert await replicas.ready(), "it answers the router's own generations"
    engine.failing = True
    for _ in range(FAILURES - 1):
        await replicas.ready()
    assert not await replicas.ready() and not replica.allows


async def test_a_health_check_that_takes_too_long_does_not_end_the_time_away() -> None:
    clock, engine = Clock(), Listing()
    [replica] = (replicas := await replicas_of(engine, clock=clock))._replicas
    engine.slow = True
    replica.breaker.trip()
    assert not await replicas.ready()


async def test_two_servers_that_check_at_once_send_one_trial() -> None:
    engine = FakeBackend(delay=0.01)
    [replica] = (replicas := await replicas_of(engine))._replicas
    replica.doubts = FAILURES
    assert await asyncio.gather(*(replicas.ready() for _ in range(3))) == [True] * 3
    assert len(engine.asked) == 1


@pytest.mark.parametrize("words", [BackendBusy("full", 7), BackendRefused("no"), InvalidRequest("budget", "none here")])
async def test_an_engine_that_refuses_the_routers_own_generation_works(words: Exception) -> None:
    [replica] = (replicas := await replicas_of(FakeBackend([words])))._replicas
    replica.doubts = FAILURES
    assert await replicas.ready() and replica.trusted


async def test_a_silent_engine_that_answers_others_meanwhile_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.backends.replica.TRIAL_SECONDS", 0.01)
    [replica] = (replicas := await replicas_of(FakeBackend([Hang()])))._replicas
    replica.doubts = FAILURES
    assert not await replicas.ready()

    async def answers_another() -> None:
        await asyncio.sleep(0)
        replica.succeeded()

    ready, _ = await asyncio.gather(replicas.ready(), answers_another())
    assert ready


async def test_a_poisonous_trial_neither_doubles_the_wait_nor_holds_up_others() -> None:
    clock = Clock()
    [replica] = (replicas := await replicas_of(Poisoned(), clock=clock))._replicas
    for _ in range(FAILURES):
        replica.failed(UNREACHABLE)
    clock.now += AWAY_SECONDS
    with pytest.raises(BackendUnavailable):
        await run(replicas, replace(request_of(), prompt=POISON))
    await run(replicas, request_of())


async def test_a_failure_under_way_when_it_was_left_out_does_not_bring_it_back() -> None:
    [replica] = (await replicas_of(FakeBackend()))._replicas
    replica.breaker.trip()
    replica.failed(UNAVAILABLE)
    assert not replica.allows


async def test_when_health_says_so_calls_succeed() -> None:
    """The wait of a replica that was away is over once the health check has seen it answer."""
    clock, engine = Clock(), FakeBackend()
    [replica] = (replicas := await replicas_of(engine, clock=clock))._replicas
    for _ in range(20):
        replica.breaker.failed()
        clock.now += 1_000
    replica.breaker.failed()
    assert not replica.allows
    assert await replicas.ready()
    await run(replicas, request_of())


async def test_a_replica_that_is_being_proved_is_not_tried_at_all() -> None:
    clock, engine = Clock(), FakeBackend()
    [replica] = (replicas := await replicas_of(engine, clock=clock))._replicas
    engine.is_ready = False
    assert not await replicas.ready()
    clock.now += AWAY_SECONDS
    failures = replica.breaker.failures
    for _ in range(3):
        with pytest.raises(BackendUnavailable, match="the engine cannot be reached"):
            await run(replicas, request_of())
    assert (engine.asked, replica.breaker.failures) == ([], failures)
    engine.is_ready = True
    assert await replicas.ready()
    await run(replicas, request_of())


async def test_an_engine_without_room_is_no_fault_and_is_not_tried_again() -> None:
    engine = FakeBackend([BackendBusy("backend: it has no room", 7)])
    [replica] = (replicas := await replicas_of(engine))._replicas
    for requests in range(1, 2 * FAILURES):
        with pytest.raises(BackendBusy) as caught:
            await run(replicas, request_of())
        assert (caught.value.retry_after, len(engine.asked)) == (7, requests)
    assert (replica.breaker.failures, replica.doubts) == (0, 0)


async def test_where_one_has_no_room_another_is_asked() -> None:
    full, free = FakeBackend([BackendBusy("full", 7)]), FakeBackend()
    replicas = await replicas_of(full, free)
    replicas._replicas[1].tokens = 1_000
    await run(replicas, request_of())
    assert (len(full.asked), len(free.asked)) == (1, 1)


async def test_where_one_answers_nonsense_another_is_asked() -> None:
    bad, good = FakeBackend([BackendError("nonsense")]), FakeBackend()
    replicas = await replicas_of(bad, good)
    replicas._replicas[1].tokens = 1_000
    await run(replicas, request_of())
    assert (len(bad.asked), len(good.asked), replicas._replicas[0].doubts) == (1, 1, 1)


@pytest.mark.parametrize("failure", [BackendTimeout("slow"), BackendRefused("no")])
async def test_a_refusal_or_a_long_silence_is_not_tried_elsewhere(failure: Exception) -> None:
    engines = [FakeBackend([failure]) for _ in range(3)]
    with pytest.raises(type(failure)):
        await run(await replicas_of(*engines), request_of())
    assert sum(len(engine.asked) for engine in engines) == 1


@pytest.mark.parametrize("other", [BackendBusy("full", 3), UNAVAILABLE])
async def test_where_nobody_has_room_the_soonest_is_named(other: Exception) -> None:
    replicas = await replicas_of(FakeBackend([BackendBusy("full", 7)]), FakeBackend([other]))
    with pytest.raises(BackendBusy) as caught:
        await run(replicas, request_of())
    assert caught.value.retry_after == (other.retry_after if isinstance(other, BackendBusy) else 7)


async def test_another_try_goes_to_another_replica() -> None:
    bad, good = FakeBackend([UNAVAILABLE]), FakeBackend()
    replicas = await replicas_of(bad, good)
    for session in map(str, range(2 * FAILURES)):
        replicas._replicas[0].doubts = 0
        await run(replicas, request_of(session))
    assert len(good.asked) == 2 * FAILURES and len(bad.asked) < 2 * FAILURES


async def test_a_replica_that_answers_again_is_whole_again() -> None:
    clock, backend = Clock(), FakeBackend()
    replicas = await replicas_of(backend, clock=clock)
    replicas._replicas[0].breaker.trip()
    clock.now += AWAY_SECONDS
    await run(replicas, request_of())
    assert replicas._replicas[0].breaker.failures == 0


async def test_while_it_is_tried_nobody_else_asks_it() -> None:
    clock = Clock()
    replicas = await replicas_of(FakeBackend([ReasoningDelta("hm"), Hang()]), clock=clock)
    replicas._replicas[0].breaker.trip()
    clock.now += AWAY_SECONDS
    trial = asyncio.create_task(run(replicas, request_of()))
    await until(lambda: replicas._replicas[0].streams == 1)
    replicas._replicas[0].breaker.trip()  # as if it had said nothing yet
    with pytest.raises(BackendUnavailable, match="is being checked"):
        await run(replicas, request_of())
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)


async def test_a_router_goes_on_with_the_other_replica() -> None:
    bad, good = FakeBackend([UNAVAILABLE]), FakeBackend()
    replicas = await replicas_of(bad, good)
    for _ in range(20):
        events = [event async for event in router_of(backend=replicas).generate(route_request(), Sampling())]
        assert isinstance(events[-1], Completion)


async def test_one_ready_replica_is_enough_and_the_rest_are_left_out() -> None:
    up, down = FakeBackend(), FakeBackend()
    replicas = await replicas_of(up, down)
    down.is_ready = False
    assert await replicas.ready()
    for _ in range(10):
        await run(replicas, request_of())
    assert (len(up.asked), len(down.asked)) == (10, 0)
    up.is_ready = False
    assert not await replicas.ready()


async def test_a_request_that_is_refused_is_not_the_replicas_fault() -> None:
    replicas = await replicas_of(FakeBackend([BackendRefused("no")]))
    for _ in range(2 * FAILURES):
        with pytest.raises(BackendRefused):
            await run(replicas, request_of())
    assert replicas._replicas[0].breaker.failures == 0


async def test_replicas_that_differ_are_refused() -> None:
    members = [Replica("a", await verified(FakeBackend(), "one")), Replica("b", await verified(FakeBackend(), "two"))]
    with pytest.raises(BackendError, match="replicas differ: a is one/native, b is two/native"):
        await Replicas(members, RecordingObserver()).prove()


async def test_a_killed_engine_is_survived() -> None:
    """Two real servers, one goes away in the middle: every generation after it is answered."""
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(simulated("vllm"))
        async with simulated("vllm") as doomed:
            hasty = Timeouts(first=1, idle=1, total=5, question=1)
            members = [
                Replica(
                    one.url, connect(Connection("vllm", one.url, MODEL, timeouts=hasty), canary.holds_budgets, stack)
                )
                for one in (doomed, other)
            ]
            replicas = Replicas(members, RecordingObserver())
            await replicas.prove()
            router = router_of(backend=replicas)
            for _ in range(5):
                assert [event async for event in router.generate(route_request(), Sampling())]
        for _ in range(20):
            events = [event async for event in router.generate(route_request(), Sampling())]
            assert isinstance(events[-1], Completion)


class Silent(FakeBackend):
    """Says nothing for a while, then answers."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        self.open += 1
        try:
            await asyncio.sleep(self._seconds)
            async for event in super().stream(request):
                yield event
        finally:
            self.open -= 1


async def test_a_silent_replica_is_overtaken_and_let_go() -> None:
    silent, quick = Silent(60), FakeBackend()
    replicas = await replicas_of(silent, quick, hedge_after=0.02)
    replicas._replicas[1].tokens = 1_000  # so that the silent one is asked first
    async with asyncio.timeout(5):
        await run(replicas, request_of())
    assert (quick.ended, silent.open) == (1, 0)
    assert [(r.tokens, r.streams, r.breaker.failures) for r in replicas._replicas] == [(0, 0, 0), (1_000, 0, 0)]


async def test_a_caller_who_speaks_in_time_is_not_hedged() -> None:
    first, second = FakeBackend(), FakeBackend()
    replicas = await replicas_of(first, second, hedge_after=5.0)
    await run(replicas, request_of())
    assert len(first.asked) + len(second.asked) == 1


async def test_a_lone_replica_is_waited_for() -> None:
    slow = Silent(0.1)
    await run(await replicas_of(slow, hedge_after=0.01), request_of())
    assert slow.ended == 1


async def test_where_the_second_fails_the_first_is_waited_for() -> None:
    slow, bad = Silent(0.1), FakeBackend([UNAVAILABLE])
    replicas = await replicas_of(slow, bad, hedge_after=0.01)
    replicas._replicas[1].tokens = 1_000
    await run(replicas, request_of())
    assert (slow.ended, len(bad.asked)) == (1, 1)


async def test_a_caller_who_leaves_stops_both() -> None:
    one, other = Silent(60), Silent(60)
    replicas = await replicas_of(one, other, hedge_after=0.01)
    task = asyncio.create_task(run(replicas, request_of()))
    await until(lambda: one.open + other.open == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert one.open + other.open == 0


@pytest.mark.parametrize("failures", range(1, TRIES))
async def test_before_the_first_event_it_is_tried_again(failures: int) -> None:
    answer: Script = [ContentDelta("4"), completion_of()]
    backend, observer = FakeBackend(*[[UNAVAILABLE]] * failures, answer), RecordingObserver()
    replicas = await replicas_of(backend, observer=observer)
    events = [event async for event in replicas.stream(request_of())]
    assert isinstance(events[-1], Completion)
    assert len(backend.asked) == failures + 1
    assert [degraded.dependency for degraded in observer.of(Degraded)] == ["backend"] * failures
    assert replicas._replicas[0].breaker.failures == 0, "the answer makes it whole again"


async def test_a_replica_that_stays_down_is_an_error_after_a_few_tries() -> None:
    backend, observer = FakeBackend([UNAVAILABLE]), RecordingObserver()
    with pytest.raises(BackendUnavailable):
        await run(await replicas_of(backend, observer=observer), request_of())
    assert len(backend.asked) == TRIES
    assert len(observer.of(Degraded)) == TRIES - 1, "the last failure is the caller's error"


@pytest.mark.parametrize(
    "script",
    [
        [BackendError("nonsense")],
        [BackendRefused("no")],
        [InvalidRequest("messages", "too long")],
        [ReasoningDelta("so"), UNAVAILABLE],
    ],
    ids=["nonsense", "refused", "invalid", "mid-stream"],
)
async def test_nothing_else_is_tried_again(script: Script) -> None:
    backend = FakeBackend(script)
    with pytest.raises((BackendError, InvalidRequest)):
        await run(await replicas_of(backend), request_of())
    assert len(backend.asked) == 1


async def test_cancelling_between_two_tries_ends_them() -> None:
    backend, observer = FakeBackend([UNAVAILABLE]), RecordingObserver()
    task = asyncio.create_task(run(await replicas_of(backend, observer=observer), request_of()))
    await until(lambda: observer.of(Degraded))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(backend.asked) < TRIES


async def test_of_two_replicas_drawn_the_one_with_less_to_do_is_taken() -> None:
    replicas = await replicas_of(*[FakeBackend() for _ in range(3)])
    for replica, tokens in zip(replicas._replicas, (0, 10, 20), strict=True):
        replica.tokens = tokens
    drawn = [replicas._chosen(None, replicas._replicas) for _ in range(300)]
    taken = Counter(one.name for one in drawn if one is not None)
    assert set(taken) == {"r0", "r1"}, "the busiest of three is never the better of two"
    assert 150 < taken["r0"] < 250, "and the idlest is one of two drawn twice in three times"


async def test_failures_weigh_more_than_tokens_and_tokens_more_than_streams() -> None:
    replicas = await replicas_of(FakeBackend(), FakeBackend())
    one, other = replicas._replicas
    one.streams = 5
    assert {replicas._chosen(None, replicas._replicas) for _ in range(20)} == {other}
    other.tokens = 1.0
    assert {replicas._chosen(None, replicas._replicas) for _ in range(20)} == {one}
    one.breaker.failed()
    assert {replicas._chosen(None, replicas._replicas) for _ in range(20)} == {other}


async def test_what_is_in_flight_is_counted_while_it_flies() -> None:
    replicas = await replicas_of(FakeBackend([ReasoningDelta("hm"), Hang()]))
    [replica] = replicas._replicas
    assert (replica.tokens, replica.streams) == (0.0, 0)
    tasks = [asyncio.create_task(run(replicas, request_of(tokens=tokens))) for tokens in (10.0, 5.0)]
    await until(lambda: replica.streams == 2)
    assert replica.tokens == 15.0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (replica.tokens, replica.streams) == (0.0, 0)


async def test_an_error_in_the_middle_is_the_replicas_failure_and_an_answer_forgives_it() -> None:
    broken: Script = [ReasoningDelta("hm"), BackendError("nonsense")]
    replicas = await replicas_of(FakeBackend([BackendError("nonsense")], broken, [ContentDelta("4"), completion_of()]))
    [replica] = replicas._replicas
    for failures in (1, 1):
        with pytest.raises(BackendError):
            await run(replicas, request_of())
        assert replica.doubts == failures, "the first event of the second had forgiven the first"
    await run(replicas, request_of())
    assert replica.breaker.failures == 0


async def test_three_tries_are_all() -> None:
    backend = FakeBackend([UNAVAILABLE])
    with pytest.raises(BackendUnavailable):
        await run(await replicas_of(backend), request_of())
    assert len(backend.asked) == 3


async def test_replicas_that_agree_have_one_fingerprint_and_one_enforcement() -> None:
    members = [Replica(name, await verified(FakeBackend(), "one")) for name in ("a", "b")]
    replicas = Replicas(members, RecordingObserver())
    assert await replicas.prove() == "one/native"
    assert replicas.enforcement is members[0].backend.enforcement


async def test_without_a_replica_that_may_be_asked_it_is_unavailable() -> None:
    replicas = await replicas_of(FakeBackend(), FakeBackend())
    for replica in replicas._replicas:
        replica.breaker.trip()
    assert replicas._chosen(None, replicas._replicas) is None
    assert replicas._chosen("talk", replicas._replicas) is None
    with pytest.raises(BackendUnavailable, match="none of the 2 engines can be reached"):
        await run(replicas, request_of())


async def test_a_request_goes_to_the_replica_that_has_its_prefix_where_that_may_be_asked() -> None:
    first, second, third = (FakeBackend() for _ in range(3))
    replicas = await replicas_of(first, second, third)
    for _ in range(8):
        *_, end = [event async for event in replicas.stream(replace(request_of(), engine="r1"))]
        assert isinstance(end, Completion) and end.engine == "r1"
    assert (len(first.asked), len(second.asked), len(third.asked)) == (0, 8, 0)
    replicas._replicas[1].breaker.trip()
    *_, end = [event async for event in replicas.stream(replace(request_of(), engine="r1"))]
    assert isinstance(end, Completion) and end.engine in ("r0", "r2")
