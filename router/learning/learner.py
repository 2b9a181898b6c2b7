"""Learns from requests that were served at the top rung: cuts their thoughts, compares the answers, keeps the evidence.

All of it happens in the background, once the caller has everything: nothing delays or changes what the caller gets. The
texts are forgotten then, unless the operator keeps prompts.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson

from router import chat_form
from router.answer_keys import answer_key
from router.domain import (
    SLACK,
    BudgetLadder,
    Decision,
    DecisionSource,
    GenerationRequest,
    LabelSource,
    Outcome,
    RouteRequest,
    Sampling,
)
from router.errors import RouterError
from router.events import Degraded, TaskFailed, Taught
from router.learning import inputs
from router.learning.cuts import Answer, answers
from router.learning.evidence import Evidence
from router.learning.journal import Journal, Report
from router.learning.judging import Judge, Verdict
from router.learning.lesson import Lesson, represents
from router.outcomes.audit import UNDER_WAY, TokenBucket
from router.outcomes.rows import PromptHasher
from router.ports import Backend, Climber, Observer

LEARNED = "learned"
"""What became of a lesson that brought evidence, as `Taught` says it."""


class NothingLearnedError(Exception):
    """A lesson that teaches nothing; says why, in the words of `Taught`."""


@dataclass(frozen=True, slots=True)
class Course:
    """What is learned.

    Attributes:
        model: the served model, by name.
        ladder: the rungs to learn about where the engine's own default is served, which is the last of them.
        share: share of the requests at the top rung to learn from, 0..1.
        answers: how answers are compared, a name in `router.answer_keys.KINDS`.
    """

    model: str
    ladder: BudgetLadder
    share: float
    answers: str = "text"


class Learner:
    """Implements `Lessons`.

    Args:
        bucket: limits the answer tokens behind cuts.
        judge: judges answers that differ; None = each counts as lost.
        names: names prompts and conversations; with `texts` these are kept, too.
    """

    def __init__(
        self,
        course: Course,
        bucket: TokenBucket,
        judge: Judge | None,
        journal: Journal,
        names: PromptHasher,
        observer: Observer,
    ) -> None:
        self._course = course
        self._bucket = bucket
        self._judge = judge
        self._journal = journal
        self._names = names
        self._observer = observer
        self._random = random.Random()
        self._tasks: set[asyncio.Task[None]] = set()

    def drawn(self, backend: Backend, request: RouteRequest, decision: Decision, sampling: Sampling) -> Lesson | None:
        """A lesson, where this request is one to learn from."""
        if decision.model != self._course.model or not represents(decision, request.options):
            return None
        if not decision.teaches and self._random.random() >= self._course.share:
            return None
        if not isinstance(backend, Climber) or not backend.climbs:
            self._ended(decision, "no steps")
            return None
        default = decision.source is DecisionSource.ENGINE_DEFAULT
        ladder = self._course.ladder if default else decision.ladder
        return Lesson(backend, request, decision, sampling, ladder, self._begin)

    def report(self, outcome: Outcome) -> None:
        """Keep what a caller says of an answer; never waits. That it agrees with another one says nothing of it."""
        if outcome.label_source is not LabelSource.AGREEMENT:
            self._journal.add(Report(outcome.decision_id, outcome.correct))

    async def close(self) -> None:
        """Stop the lessons under way; what they have found is in the journal or nowhere."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, lesson: Lesson, flaw: str) -> None:
        tokens = float(lesson.shorter * ((lesson.completion and lesson.completion.answer_tokens) or 0))
        if flaw:
            self._ended(lesson.decision, flaw)
        elif len(self._tasks) >= UNDER_WAY:
            self._ended(lesson.decision, "busy")
        elif not self._bucket.take(tokens):
            self._ended(lesson.decision, "allowance")
        else:
            task = asyncio.create_task(self._learn(lesson, tokens))
            self._tasks.add(task)  # the event loop itself keeps only weak references
            task.add_done_callback(self._tasks.discard)

    async def _learn(self, lesson: Lesson, tokens: float) -> None:
        try:
            evidence = await self._evidence(lesson)
        except NothingLearnedError as why:
            self._ended(lesson.decision, str(why))
        except RouterError as error:
            self._ended(lesson.decision, "failed")
            self._observer(Degraded("learning", str(error)))
        except Exception as error:  # nobody awaits this task, so the failure would go unseen
            self._ended(lesson.decision, "failed")
            self._observer(TaskFailed("learning", error))
        else:
            self._bucket.charge(evidence.spent_tokens - tokens)
            self._journal.add(evidence)
            self._ended(lesson.decision, LEARNED, evidence)

    async def _evidence(self, lesson: Lesson) -> Evidence:
        """Raises NothingLearnedError, InvalidRequest, DependencyError."""
        found, spent = await self._answers(lesson)
        same = tuple(_agree(one, found[-1], self._course.answers) for one in found)
        judged, verdict = await self._judged(lesson, found, same)
        decision, names = lesson.decision, self._names_of(lesson.request)
        return Evidence(
            decision_id=decision.id,
            at=time.time(),
            engine=decision.backend,
            ladder=lesson.ladder,
            prompt=names[0],
            group=names[1],
            inputs=inputs.extract(lesson.request.prompt),
            thinking_tokens=tuple(one.thinking_tokens for one in found),
            same=same,
            judged=judged,
            judge="" if verdict is None or self._judge is None else self._judge.name,
            spent_tokens=spent + (0 if verdict is None else verdict.tokens),
            kept=_kept(lesson.request, found) if self._names.texts else "",
            features=inputs.VERSION,
        )

    async def _answers(self, lesson: Lesson) -> tuple[list[Answer], int]:
        assert lesson.completion is not None
        request = _again(lesson)
        if (thought := lesson.backend.climb(request)) is None:
            raise NothingLearnedError("no steps")
        await thought.recall(lesson.reasoning)
        if abs(thought.tokens - lesson.thinking_tokens) > SLACK:  # it would be cut at other places than in serving
            raise NothingLearnedError("other tokens")
        served = Answer.of(lesson.answer, lesson.completion, thought.tokens)
        return await answers(thought, lesson.ladder.rungs, served)

    async def _judged(
        self, lesson: Lesson, found: Sequence[Answer], same: Sequence[bool]
    ) -> tuple[tuple[float | None, ...], Verdict | None]:
        """The verdicts by rung, and what they come from; of an answer that is not whole there is none."""
        served, nobody = found[-1], (None,) * len(found)
        others = list(dict.fromkeys(a.text for a, alike in zip(found, same, strict=True) if a.whole and not alike))
        if self._judge is None or not others or not served.whole:
            return nobody, None
        verdict = await self._judge.compare(lesson.request.prompt, served.text, others)
        said = dict(zip(others, verdict.others, strict=True)) | {served.text: verdict.served}
        return (*(said.get(a.text) if a.whole else None for a in found[:-1]), verdict.served), verdict

    def _names_of(self, request: RouteRequest) -> tuple[str, str]:
        """The keyed hashes of what is asked, and of the conversation."""
        prompt = str(replace(self._names, texts=False).row(request.tenant, request.prompt)["prompt_id"])
        return prompt, self._names.conversation(request.tenant, request.options.conversation_id) or prompt

    def _ended(self, decision: Decision, outcome: str, evidence: Evidence | None = None) -> None:
        self._observer(Taught(decision.model, decision.id, outcome, 0 if evidence is None else evidence.spent_tokens))


def _again(lesson: Lesson) -> GenerationRequest:
    """The request that was served. Without log-probabilities, which the answers behind cuts are not asked for."""
    options, tenant = lesson.request.options, lesson.request.tenant
    session = f"{tenant}/{options.conversation_id}" if options.conversation_id else None
    sampling = replace(lesson.sampling, logprobs=False, top_logprobs=0)
    expected = float(lesson.thinking_tokens)
    return GenerationRequest(lesson.request.prompt, lesson.ladder.rungs[-1], 0, sampling, expected, session)


def _agree(one: Answer, served: Answer, kind: str) -> bool:
    """Equal answers. Where the served one is not whole, nothing is lost by giving none either."""
    if not (one.whole and served.whole):
        return one.whole == served.whole
    keys = [(answer_key(one.text, each), answer_key(served.text, each)) for each in ("text", kind)]
    return any(mine is not None and mine == its for mine, its in keys)


def _kept(request: RouteRequest, found: Sequence[Answer]) -> str:
    """The texts as JSON: messages, and the answers by rung."""
    body = {"messages": orjson.loads(chat_form.canonical(request.prompt)), "answers": [one.text for one in found]}
    return orjson.dumps(body).decode()
