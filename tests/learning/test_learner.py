"""Which requests teach, when, and what is kept of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenant, Tenants
from router.bundle.features import extract
from router.domain import (
    TEACHES,
    Choice,
    Completion,
    ContentDelta,
    CountSource,
    Decision,
    DecisionSource,
    FinishReason,
    LabelSource,
    MaxLoss,
    Message,
    MinQuality,
    OnUnmet,
    Outcome,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    ReasoningEffort,
    Role,
    RoutingOptions,
    Sampling,
    Tool,
    Tools,
)
from router.errors import BackendError, BackendTimeout, NotFound, VerifierError
from router.events import Degraded, TaskFailed, Taught
from router.learning import learner, store
from router.learning.evidence import Evidence, Inputs
from router.learning.examiner import Examiner
from router.learning.journal import Journal
from router.learning.judging import ByVerifier, Verdict
from router.learning.learner import AT_A_TIME, OPEN, Course, Learner
from router.learning.lesson import represents
from router.outcomes.audit import UNDER_WAY, TokenBucket
from router.outcomes.rows import PromptHasher
from router.routing.router import BudgetRouter
from tests.support.climbs import ClimbingBackend
from tests.support.fakes import (
    FOREIGN_BUNDLE,
    LADDER,
    MODEL,
    RISING,
    UNAVAILABLE,
    Hang,
    RecordingObserver,
    completion_of,
    decision_of,
    ladder_of,
    request_of,
    router_of,
    until,
)

T = TypeVar("T")
THOUGHT = 40
RUNGS = replace(ladder_of(0, 16, 64), rungs=(*ladder_of(0, 16, 64).rungs, ReasoningBudget("default", None)))
DEFAULT = RUNGS.rungs[-1]
END = completion_of(DEFAULT, thinking_tokens=THOUGHT)
SAID: list[Any] = [*[ReasoningDelta("t")] * THOUGHT, ContentDelta("answered at 16")]
SCRIPT = [*SAID, END]
"""What the engine says by itself: an answer that it also gives behind 16 tokens, and not behind none."""


class School:
    """A router of fakes in front of an engine of which nothing is learned yet."""

    def __init__(self, home: Path, **given: Any) -> None:
        self.home, self.observer, self.waits = home, RecordingObserver(), 0
        self.backend = ClimbingBackend()
        self.backend._scripts = [given.pop("script", SCRIPT)]
        self.journal = Journal(home, self.observer)
        names, failing = PromptHasher(b"secret", texts=False), given.pop("failing", None)

        def inputs(prompts: Sequence[Prompt]) -> Inputs:
            if failing in [prompt.text for prompt in prompts]:
                raise ValueError(failing)
            return extract(prompts)

        self.learner = Learner(
            Course(MODEL, RUNGS, given.pop("share", 1.0), 0.05, given.pop("reports", True)),
            TokenBucket(given.pop("tokens", 1e6), lambda: 0.0),
            Examiner("text", given.pop("judge", None), inputs, names, self.quietly, self.observer),
            self.journal,
            self.observer,
        )
        self.router: BudgetRouter = router_of(
            backend=self.backend, observer=self.observer, lessons=self.learner, bundle=FOREIGN_BUNDLE, **given
        )

    async def quietly(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Counts how often the engine is asked."""
        self.waits += 1
        return await ask()

    async def ask(self, text: str = "2 + 2 =", tools: Tools | None = None, **options: Any) -> Decision:
        request = request_of(text, options=RoutingOptions(MaxLoss(0.05), **options))
        first, *_ = [event async for event in self.router.generate(request, Sampling(0.0), tools or Tools())]
        assert isinstance(first, Decision)
        return first

    async def lessons(self, number: int = 1) -> list[str]:
        """What became of so many requests that were drawn."""
        await until(lambda: len(self.observer.of(Taught)) >= number)
        return [one.outcome for one in self.observer.of(Taught)]

    async def evidence(self) -> list[Evidence]:
        await self.journal.flush()
        return [one for _, one in store.read(self.home)]

    async def close(self) -> None:
        await self.learner.close()
        await self.journal.close()


@pytest.fixture
async def school(tmp_path: Path) -> AsyncIterator[School]:
    made = School(tmp_path)
    yield made
    await made.close()


async def test_a_request_teaches_what_each_rung_would_have_lost(school: School) -> None:
    decision = await school.ask()
    assert await school.lessons() == ["learned"]
    (one,) = await school.evidence()
    assert (one.decision_id, one.engine, one.ladder) == (decision.id, decision.backend, RUNGS)
    assert (one.thinking_tokens, one.losses()) == ((0, 16, THOUGHT, THOUGHT), (1.0, 0.0, 0.0, 0.0))
    assert (one.spent_tokens, one.judge, one.kept) == (4, "", "")
    assert one.prompt == one.group and len(one.inputs) and one.features
    assert school.waits == 3, "to read the thought again, and for each cut"


async def test_the_engine_is_asked_for_nothing_before_the_caller_has_the_last_event(school: School) -> None:
    async with aclosing(school.router.generate(request_of(), Sampling(0.0))) as events:
        async for event in events:
            if isinstance(event, Completion):
                break
        for _ in range(20):
            await asyncio.sleep(0)
        assert not school.backend.begun and not school.observer.of(Taught)
    assert await school.lessons() == ["learned"]


@pytest.mark.parametrize("changes", [{"thinking_tokens": THOUGHT + 3}, {"thinking_tokens": 2 * THOUGHT, "attempts": 2}])
async def test_what_cannot_be_cut_where_serving_cuts_counts_as_lost(changes: dict[str, Any], tmp_path: Path) -> None:
    school = School(tmp_path, script=[*SAID, replace(END, **changes)])
    await school.ask()
    assert await school.lessons() == ["other tokens"]
    (one,) = await school.evidence()
    assert one.losses()[:2] == (1.0, 1.0) and one.losses()[-1] == 0.0
    assert one.thinking_tokens == (0, 16, min(64, changes["thinking_tokens"]), changes["thinking_tokens"])
    await school.close()


async def test_answers_that_a_caller_s_limit_cuts_off_lose_nothing_only_where_their_texts_are_equal(
    tmp_path: Path,
) -> None:
    school = School(tmp_path, script=[*SAID, replace(END, finish=FinishReason.TRUNCATED)])
    school.backend.finish = FinishReason.TRUNCATED
    await school.ask()
    assert await school.lessons() == ["learned"]
    assert [one.same for one in await school.evidence()] == [(False, True, True, True)]
    await school.close()


@pytest.mark.parametrize(
    "changes", [{"thinking_tokens": None}, {"count_source": CountSource.ESTIMATE}, {"counts_disagree": True}]
)
async def test_a_thought_that_nobody_has_counted_teaches_nothing(changes: dict[str, Any], tmp_path: Path) -> None:
    school = School(tmp_path, script=[*SAID, replace(END, **changes)])
    await school.ask()
    assert await school.lessons() == ["uncounted"] and not await school.evidence()
    await school.close()


async def test_what_cannot_be_compared_is_not_drawn(school: School) -> None:
    await school.ask(tools=Tools((Tool("look", "", {}),)))
    await school.ask(max_thinking_tokens=100)
    begun = Prompt((Message(Role.USER, "2 + 2 ="), Message(Role.ASSISTANT, "It is")))
    request = replace(request_of(), prompt=begun)
    assert [event async for event in school.router.generate(request, Sampling(0.0))]
    await school.ask()
    assert await school.lessons() == ["learned"], "the last one alone"


async def test_of_a_conversation_only_the_first_turn_teaches(school: School) -> None:
    talk = [Message(Role.USER, "2 + 2 ="), Message(Role.ASSISTANT, "4"), Message(Role.USER, "And 3 + 3?")]
    for turns, named in ((1, "c"), (3, "c"), (3, None)):
        options = RoutingOptions(MaxLoss(0.05), conversation_id=named)
        request = replace(request_of(options=options), prompt=Prompt(tuple(talk[:turns])))
        assert [event async for event in school.router.generate(request, Sampling(0.0))]
    assert await school.lessons(2) == ["learned"] * 2, "the second one alone is decided by what the first one keeps"
    assert len(await school.evidence()) == 2


async def test_there_is_room_only_where_a_lesson_can_begin(tmp_path: Path) -> None:
    school = School(tmp_path, tokens=3.0)
    assert school.learner.has_room(MODEL) and not school.learner.has_room("failover")
    await school.ask()
    await school.lessons()
    assert not school.learner.has_room(MODEL), "the allowance is spent"
    await school.close()
    full = School(tmp_path)
    full.backend._scripts = [[*SAID[:-1], Hang()]]
    under_way = [asyncio.create_task(full.ask()) for _ in range(OPEN)]
    await until(lambda: not full.learner.has_room(MODEL))
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    assert full.learner.has_room(MODEL)
    await full.close()


async def test_an_engine_without_steps_is_counted(school: School) -> None:
    school.backend.climbs = False
    await school.ask()
    assert await school.lessons() == ["no steps"]


async def test_evidence_is_written_in_the_order_of_the_requests(school: School) -> None:
    school.backend._scripts = [[*SAID[:-1], Hang()], SCRIPT, [*SAID[:-1], Hang()], SCRIPT]
    first = asyncio.create_task(school.ask())
    await until(lambda: len(school.backend.asked) == 1)
    ids = [(await school.ask()).id]
    second = asyncio.create_task(school.ask())
    await until(lambda: len(school.backend.asked) == 3)
    ids.append((await school.ask()).id)
    assert await school.lessons(2) == ["learned"] * 2 and not await school.evidence()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert [one.decision_id for one in await school.evidence()] == ids[:1]
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert [one.decision_id for one in await school.evidence()] == ids


@pytest.mark.parametrize(("judge", "lost"), [(None, 1.0), ("judge", 1.25)])
async def test_a_caller_who_takes_long_holds_up_no_evidence_and_counts_as_lost_until_the_end(
    judge: str | None, lost: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "LONGEST_SECONDS", 0.05)
    school = School(tmp_path, judge=None if judge is None else Scripted(1.0))
    async with aclosing(school.router.generate(request_of(), Sampling(0.0))) as events:
        slow = await anext(events)
        assert isinstance(slow, Decision)
        await asyncio.sleep(0.1)
        other = await school.ask()
        await school.lessons()
        known = 0.0 if judge else 1.0
        first, second = await school.evidence()
        assert (first.decision_id, first.losses(judge_misses=0.2)) == (slow.id, (lost, lost, lost, 0.0))
        assert (second.decision_id, second.losses()) == (other.id, (known, 0.0, 0.0, 0.0))
        assert [event async for event in events]
    await school.lessons(2)
    assert [(one.decision_id, one.losses()[0]) for one in await school.evidence()] == [
        (slow.id, known),
        (other.id, known),
    ]
    await school.close()


async def test_evidence_of_a_caller_who_takes_long_that_cannot_be_made_costs_no_other_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "LONGEST_SECONDS", 0.05)
    school = School(tmp_path, failing="slow")
    async with aclosing(school.router.generate(request_of("slow"), Sampling(0.0))) as events:
        await anext(events)
        await asyncio.sleep(0.1)
        other = await school.ask()
    assert "learned" in await school.lessons(2)
    assert [one.decision_id for one in await school.evidence()] == [other.id]
    assert [one.task for one in school.observer.of(TaskFailed)] == ["learning"]
    await school.close()


async def test_a_caller_who_leaves_within_the_thought_teaches_nothing(school: School) -> None:
    async with aclosing(school.router.generate(request_of(), Sampling(0.0))) as events:
        async for event in events:
            if isinstance(event, ReasoningDelta):
                break
    assert await school.lessons() == ["unfinished"] and not school.backend.begun


async def test_what_a_caller_has_not_waited_for_is_answered_behind_the_same_thought(school: School) -> None:
    async with aclosing(school.router.generate(request_of(), Sampling(0.0))) as events:
        async for event in events:
            if isinstance(event, ContentDelta):
                break
    assert await school.lessons() == ["learned"]
    (one,) = await school.evidence()
    assert (one.thinking_tokens, one.losses()) == ((0, 16, THOUGHT, THOUGHT), (1.0, 1.0, 0.0, 0.0))
    assert one.spent_tokens == 3 * 2, "behind two cuts and behind the whole thought"


async def test_an_answer_that_the_engine_cannot_end_either_teaches_nothing(school: School) -> None:
    school.backend.answers_fail = BackendTimeout("slow")
    async with aclosing(school.router.generate(request_of(), Sampling(0.0))) as events:
        async for event in events:
            if isinstance(event, ContentDelta):
                break
    assert await school.lessons() == ["failed"] and not await school.evidence()


async def test_thoughts_that_are_kept_in_memory_are_bounded(school: School) -> None:
    school.backend._scripts = [[*SAID[:-1], Hang()]]
    under_way = [asyncio.create_task(school.ask()) for _ in range(OPEN + 3)]
    assert await school.lessons(3) == ["busy"] * 3
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    assert (await school.lessons(OPEN + 3))[3:] == ["unfinished"] * OPEN


async def test_a_share_is_drawn(tmp_path: Path) -> None:
    school = School(tmp_path, share=0.3)
    for _ in range(200):
        await school.ask()
    await asyncio.sleep(0.05)
    assert 30 < len(school.observer.of(Taught)) < 90
    await school.close()


async def test_the_allowance_is_held(tmp_path: Path) -> None:
    school = School(tmp_path, tokens=7.0)
    for number in range(1, 5):
        await school.ask()
        await school.lessons(number)
    assert await school.lessons() == ["learned", "learned", "allowance", "allowance"], (
        "4 tokens each, of which the last one may be beyond"
    )
    await school.close()


async def test_while_others_wait_for_the_engine_nothing_is_learned(tmp_path: Path) -> None:
    queue = FairQueue(2_100.0, 30.0)  # room for one request of an unknown thought
    admission = Admission(Tenants({"default": Tenant()}), queue, MemoryQuotas(), RecordingObserver())
    school = School(tmp_path, admission=admission)
    await asyncio.gather(school.ask(), school.ask(), school.ask())
    assert sorted(await school.lessons(3)) == ["busy", "learned", "learned"], "of the first, the third was waiting"
    await school.close()


async def test_only_so_many_lessons_are_under_way(school: School) -> None:
    school.backend.hangs = "recall"
    for _ in range(UNDER_WAY + 2):
        await school.ask()
    assert await school.lessons(2) == ["busy", "busy"]
    assert len([one for one in school.backend.begun if one.steps]) == AT_A_TIME, "the others wait for their turn"


@pytest.mark.parametrize(("error", "losses"), [(BackendTimeout("slow"), [(1.0, 1.0, 0.0, 0.0)]), (UNAVAILABLE, [])])
async def test_an_engine_that_is_there_and_fails_behind_a_cut_counts_as_a_loss(
    error: BackendError, losses: list[Any], school: School
) -> None:
    school.backend.answers_fail = error
    await school.ask()
    assert await school.lessons() == ["failed"]
    assert [one.losses() for one in await school.evidence()] == losses
    assert [(one.dependency, one.error) for one in school.observer.of(Degraded)] == [("learning", str(error))]


async def test_a_report_counts_whenever_it_comes(school: School) -> None:
    late, agreed = await school.ask(), await school.ask()
    await school.lessons(2)
    await school.router.report(Outcome(late.id, 0.5, LabelSource.VERIFIER))
    await school.router.report(Outcome(agreed.id, 0.5, LabelSource.AGREEMENT))
    found = {one.decision_id: one for one in await school.evidence()}
    assert (found[late.id].reported, found[agreed.id].reported) == (0.5, None)
    school.learner.report(Outcome("early", 0.25, LabelSource.USER))
    await school.journal.flush()
    school.journal.add(replace(found[late.id], decision_id="early", reported=None))
    assert {one.decision_id: one.reported for one in await school.evidence()}["early"] == 0.25


async def test_a_report_of_another_tenant_s_answer_is_refused_and_counts_nothing(school: School) -> None:
    decision = await school.ask()
    await school.lessons()
    with pytest.raises(NotFound):
        await school.router.report(Outcome(decision.id, 0.0, LabelSource.USER, tenant="another"))
    assert [one.reported for one in await school.evidence()] == [None]


async def test_reports_count_only_where_the_operator_wants_it(tmp_path: Path) -> None:
    school = School(tmp_path, reports=False)
    decision = await school.ask()
    await school.lessons()
    await school.router.report(Outcome(decision.id, 0.0, LabelSource.USER))
    assert [one.losses() for one in await school.evidence()] == [(1.0, 0.0, 0.0, 0.0)]
    await school.close()


async def test_evidence_names_its_tenant_by_a_hash(tmp_path: Path) -> None:
    school = School(tmp_path, tenants=("one", "other"))
    for name in ("one", "other", "one"):
        [_ async for _ in school.router.generate(replace(request_of(), tenant=name), Sampling(0.0))]
    await school.lessons(3)
    first, other, again = [one.tenant for one in await school.evidence()]
    assert first == again != other and not {"one", "other"} & {first, other}
    await school.close()


class Scripted:
    """A judge that gives every answer the same verdict."""

    name = "judge"

    def __init__(self, verdict: float | None) -> None:
        self.verdict, self.asked = verdict, list[tuple[str, list[str]]]()

    async def compare(self, prompt: Prompt, served: str, others: Any) -> Verdict:
        self.asked.append((served, list(others)))
        return Verdict(1.0, (self.verdict,) * len(others), 7)


@pytest.mark.parametrize(("verdict", "losses"), [(1.0, 0.0), (0.0, 1.0), (None, 1.0)])
async def test_only_answers_that_differ_are_judged(verdict: float | None, losses: float, tmp_path: Path) -> None:
    judge = Scripted(verdict)
    school = School(tmp_path, judge=judge)
    await school.ask()
    await school.lessons()
    (one,) = await school.evidence()
    assert judge.asked == [("answered at 16", ["answered at 0"])]
    assert (one.judged, one.judge) == ((verdict, 1.0, 1.0, 1.0), "judge")
    assert one.losses() == (losses, 0.0, 0.0, 0.0) and one.spent_tokens == 4 + 7
    await school.close()


async def test_a_judge_that_fails_is_no_judge(tmp_path: Path) -> None:
    class Fails:
        async def correct(self, prompt: Prompt, answers: list[str]) -> list[float]:
            raise VerifierError("verifier: no")

    school = School(tmp_path, judge=ByVerifier(Fails()))
    await school.ask()
    assert await school.lessons() == ["learned"]
    assert [(one.losses(), one.judge) for one in await school.evidence()] == [((1.0, 0.0, 0.0, 0.0), "")]
    assert [one.error for one in school.observer.of(Degraded)] == ["verifier: no"]
    await school.close()


NAMED = DecisionSource.OVERRIDE
TOP = len(LADDER) - 1


def taught(**changes: Any) -> Decision:
    return decision_of(index=TOP, **({"certificate": None} | changes))


@pytest.mark.parametrize(
    ("decision", "options", "teaches"),
    [
        (taught(), {}, True),
        (replace(taught(source=DecisionSource.EXPLORE), choice=Choice(TOP, True, None, TEACHES)), {}, True),
        (taught(source=DecisionSource.EXPLORE), {}, False),
        (decision_of(index=TOP), {}, False),
        (decision_of(index=TOP - 1, certificate=None), {}, False),
        (taught(source=NAMED), {}, False),
        (taught(source=DecisionSource.FALLBACK, score=None), {}, False),
        (taught(score=replace(RISING, far=True)), {}, False),
        (taught(), {"target": MinQuality(0.5)}, False),
        (taught(), {"target": MaxLoss(0.01)}, False),
        (taught(), {"target": MaxLoss(0.1)}, True),
        (taught(), {"target": MaxLoss(0.05, per_prompt=True)}, False),
        (taught(), {"on_unmet": OnUnmet.CHEAPEST_NEAR_BEST}, False),
        (taught(), {"max_latency": 5.0}, False),
        (taught(), {"max_latency": 5.0, "latency_of_call": True}, True),
        (taught(), {"min_thinking_tokens": 5}, False),
        (taught(), {"max_thinking_tokens": 256}, False),
        (taught(), {"reasoning_effort": ReasoningEffort.HIGH}, False),
    ],
)
def test_what_a_score_sends_up_stands_for_no_others(decision: Decision, options: dict[str, Any], teaches: bool) -> None:
    request = request_of(options=RoutingOptions(**{"target": MaxLoss(0.05)} | options))
    assert represents(decision, request, 0.05) == teaches


async def test_a_second_service_on_the_same_folder_goes_on(tmp_path: Path) -> None:
    for number in (1, 2):
        school = School(tmp_path)
        await school.ask()
        await school.lessons()
        assert len(await school.evidence()) == number
        await school.close()
