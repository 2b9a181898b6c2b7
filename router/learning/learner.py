"""Learns from requests that were served at the top rung, in the background, once their callers have everything.

Nothing delays or changes what a caller gets. The texts are forgotten then, unless the operator keeps prompts.
"""

import asyncio
import random
from dataclasses import dataclass
from functools import partial

from router.domain import BudgetLadder, Decision, LabelSource, Outcome, RouteRequest, Sampling
from router.errors import RouterError
from router.events import Degraded, TaskFailed, Taught
from router.learning.evidence import Evidence
from router.learning.examiner import FAILED, NO_STEPS, Examiner, NothingLearnedError
from router.learning.in_order import InOrder, Place
from router.learning.journal import Journal, Report
from router.learning.lesson import Lesson, represents
from router.outcomes.audit import UNDER_WAY, TokenBucket
from router.ports import Backend, Climber, Observer

BUSY = "busy"

AT_A_TIME = 2
"""Thoughts that are cut at a time: the engine has its callers to answer. Of those that wait, as many as audits run."""

MOST_IN_LINE, LONGEST_SECONDS = 1_000, 600.0
"""Pieces of evidence that may wait for an earlier one, and how long for each: a request may take as long as its caller
lets it. What takes longer counts as lost until it ends."""

OPEN = 64
"""Requests under way whose thoughts are kept to be cut; of each, a megabyte or two at most."""


@dataclass(frozen=True, slots=True)
class Course:
    """What is learned.

    Attributes:
        model: the served model, by name.
        ladder: the rungs to learn about where the engine thinks as it does by itself, which is the last of them.
        share: share of the requests at the top rung to learn from, 0..1.
        max_loss: the target of callers that name none.
        reports: what callers say of their answers counts.
    """

    model: str
    ladder: BudgetLadder
    share: float
    max_loss: float
    reports: bool = True


class Learner:
    """Implements `Lessons`.

    Args:
        bucket: limits the tokens behind cuts, and of judges.
    """

    def __init__(
        self, course: Course, bucket: TokenBucket, examiner: Examiner, journal: Journal, observer: Observer
    ) -> None:
        self._course = course
        self._bucket = bucket
        self._examiner = examiner
        self._journal = journal
        self._observer = observer
        self._random = random.Random()
        self._open = 0
        self._line = InOrder[Evidence](journal.add, LONGEST_SECONDS)
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._tasks: set[asyncio.Task[None]] = set()

    def has_room(self, model: str) -> bool:
        """Whether a request to a model could be learned from now."""
        return model == self._course.model and len(self._tasks) < UNDER_WAY and not self._refusal()

    def drawn(self, backend: Backend, request: RouteRequest, decision: Decision, sampling: Sampling) -> Lesson | None:
        """A lesson, where this request is one to learn from."""
        if decision.model != self._course.model:
            return None
        if not represents(decision, request, self._course.max_loss):
            return None
        if not decision.teaches and self._random.random() >= self._course.share:
            return None
        # Asked before anything is known of the answer: what cuts nothing costs nothing, and must be left out, too.
        if refusal := self._refusal():
            self._ended(decision, refusal)
            return None
        if not isinstance(backend, Climber) or not backend.climbs:
            self._ended(decision, NO_STEPS)
            return None
        # What the engine thinks by itself can be cut anywhere, whichever rungs a bundle has.
        ladder = self._course.ladder if decision.rung == self._course.ladder.rungs[-1] else decision.ladder
        self._open += 1
        place = self._line.begin()
        lesson = Lesson(backend, request, decision, sampling, ladder, partial(self._begin, place))
        place.worst = partial(self._worst, lesson)
        return lesson

    def report(self, outcome: Outcome) -> None:
        """Keep what a caller says of an answer; never waits. That it agrees with another one says nothing of it."""
        if self._course.reports and outcome.label_source is not LabelSource.AGREEMENT:
            self._journal.add(Report(outcome.decision_id, outcome.correct))

    async def close(self) -> None:
        """Stop the lessons under way; what they have found is in the journal or nowhere."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _refusal(self) -> str:
        """Why no lesson can begin now; "" where one can."""
        if self._open >= OPEN or len(self._line) >= MOST_IN_LINE:
            return BUSY
        return "" if self._bucket.take(0.0) else "allowance"

    def _worst(self, lesson: Lesson) -> Evidence | None:
        try:
            return self._examiner.worst(lesson)
        except Exception as error:  # it is asked for within the request of another caller
            self._observer(TaskFailed("learning", error))
            return None

    def _begin(self, place: Place[Evidence], lesson: Lesson, flaw: str) -> None:
        self._open -= 1
        if flaw or len(self._tasks) >= UNDER_WAY:
            self._line.end(place)
            self._ended(lesson.decision, flaw or BUSY)
            return
        task = asyncio.create_task(self._learn(place, lesson))
        self._tasks.add(task)  # the event loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def _learn(self, place: Place[Evidence], lesson: Lesson) -> None:
        evidence, outcome = None, FAILED
        try:
            async with self._turns:
                evidence, outcome = await self._examiner.evidence(lesson)
        except NothingLearnedError as why:
            outcome = str(why)
        except RouterError as error:
            self._observer(Degraded("learning", str(error)))
        except Exception as error:  # nobody awaits this task, so the failure would go unseen
            self._observer(TaskFailed("learning", error))
        spent = 0 if evidence is None else evidence.spent_tokens
        self._bucket.charge(spent)
        self._line.end(place, evidence)
        self._ended(lesson.decision, outcome, spent)

    def _ended(self, decision: Decision, outcome: str, tokens: int = 0) -> None:
        self._observer(Taught(decision.model, decision.id, outcome, tokens))
