"""Makes evidence of a lesson: cuts the thought, has the answers behind the cuts, compares them, and has them judged.

What is not known counts as lost. Left out, it would make the losses too small: thoughts that are long, and answers that
differ, are those that something goes wrong with. A lesson is dropped only for what has nothing to do with its prompt.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import orjson

from router import chat_form
from router.answer_keys import agree
from router.bundle import features
from router.domain import SLACK, GenerationRequest, Prompt, RouteRequest
from router.errors import BackendBusy, BackendError, BackendUnavailable, DependencyError, InvalidRequest
from router.events import Degraded
from router.learning.cuts import Answer, answered, answers, lost
from router.learning.evidence import Evidence, Inputs
from router.learning.judging import Judge, Verdict
from router.learning.lesson import Lesson
from router.learning.quiet import Quietly
from router.outcomes.rows import PromptHasher
from router.ports import Observer

LEARNED, OTHER_TOKENS, FAILED, NO_STEPS = "learned", "other tokens", "failed", "no steps"
"""What became of a lesson, as `Taught` says it."""

MOST_KEPT = 1 << 15
"""Characters of the texts of a lesson that are kept; nobody judges longer ones."""

Extract = Callable[[Sequence[Prompt]], Inputs]

UNJUDGED = Verdict(0.0, ())


class NothingLearnedError(Exception):
    """A lesson that teaches nothing; says why, in the words of `Taught`."""


class Examiner:
    """Makes evidence of lessons.

    Args:
        answers: how answers are compared, a name in `router.answer_keys.KINDS`.
        judge: judges answers that differ; None = each counts as lost.
        extract: the classifier's inputs of prompts [prompts, width].
        names: names prompts and conversations; with `texts` these are kept, too.
        quietly: asks the engine.
    """

    def __init__(
        self,
        answers: str,
        judge: Judge | None,
        extract: Extract,
        names: PromptHasher,
        quietly: Quietly,
        observer: Observer,
    ) -> None:
        self._kind = answers
        self._judge = judge
        self._extract = extract
        self._names = names
        self._quietly = quietly
        self._observer = observer

    async def evidence(self, lesson: Lesson) -> tuple[Evidence, str]:
        """The evidence, and what became of the lesson.

        Raises:
            NothingLearnedError: the request cannot be had in steps.
            BackendUnavailable, BackendBusy: the engine cannot be asked now.
        """
        found, spent, outcome = await self._answers(lesson)
        same = tuple(_agree(one, found[-1], self._kind) for one in found)
        verdict = await self._verdict(lesson, found, same)
        evidence = replace(
            self._unjudged(lesson, found, same),
            judged=verdict.others or (None,) * len(found),
            judge=self._judge.name if self._judge is not None and verdict.others else "",
            spent_tokens=spent + verdict.tokens,
            kept=_kept(lesson.request, found) if self._names.texts and outcome == LEARNED else "",
        )
        return evidence, outcome

    def worst(self, lesson: Lesson) -> Evidence:
        """The evidence of a lesson that is still under way, as if all were lost: in the end it shows nothing worse."""
        rungs = lesson.ladder.rungs
        longest = max(rung.tokens for rung in rungs if rung.tokens is not None)
        unknown = [Answer("", False, longest if rung.tokens is None else rung.tokens, 0, known=False) for rung in rungs]
        evidence = self._unjudged(lesson, unknown, [False] * (len(rungs) - 1) + [True])
        if self._judge is None:
            return evidence
        # What a judge that misses some sees counts more than 1.
        return replace(evidence, judged=(0.0,) * (len(rungs) - 1) + (1.0,), judge=self._judge.name)

    def _unjudged(self, lesson: Lesson, found: Sequence[Answer], same: Sequence[bool]) -> Evidence:
        decision, (prompt, group) = lesson.decision, self._names_of(lesson.request)
        return Evidence(
            decision_id=decision.id,
            at=time.time(),
            engine=decision.backend,
            ladder=lesson.ladder,
            prompt=prompt,
            group=group,
            inputs=self._extract([lesson.request.prompt])[0],
            thinking_tokens=tuple(one.thinking_tokens for one in found),
            same=tuple(same),
            judged=(None,) * len(found),
            features=features.VERSION,
            tenant=self._names.tenant(lesson.request.tenant),
        )

    async def _answers(self, lesson: Lesson) -> tuple[list[Answer], int, str]:
        """The answers by rung, the tokens that they have cost, and what became of the lesson."""
        if (thought := lesson.backend.climb(_again(lesson))) is None:
            raise NothingLearnedError(NO_STEPS)
        await self._quietly(partial(thought.recall, lesson.reasoning))
        rungs, served, drawn = lesson.ladder.rungs, lesson.served, 0
        if served is None:
            served = await self._quietly(partial(answered, thought))
            drawn = served.drawn
        # Cuts of two attempts, or of other tokens than were drawn, would not be those of serving.
        if lesson.attempts > 1 or abs(thought.tokens - served.thinking_tokens) > SLACK:
            return lost(rungs, served), 0, OTHER_TOKENS
        try:
            found, spent = await answers(thought, rungs, served, self._quietly)
            return found, drawn + spent, LEARNED
        except (BackendUnavailable, BackendBusy):
            raise
        except (BackendError, InvalidRequest) as error:
            self._observer(Degraded("learning", str(error)))
            return lost(rungs, served), drawn, FAILED

    async def _verdict(self, lesson: Lesson, found: Sequence[Answer], same: Sequence[bool]) -> Verdict:
        """The verdict on all rungs; on an answer that is not whole there is none."""
        served = found[-1]
        others = list(dict.fromkeys(a.text for a, alike in zip(found, same, strict=True) if a.whole and not alike))
        if self._judge is None or not others or not served.whole:
            return UNJUDGED
        try:
            verdict = await self._judge.compare(lesson.request.prompt, served.text, others)
        except DependencyError as error:
            self._observer(Degraded("learning", str(error)))
            return UNJUDGED
        said = dict(zip(others, verdict.others, strict=True)) | {served.text: verdict.served}
        by_rung = (*(said.get(a.text) if a.whole else None for a in found[:-1]), verdict.served)
        return replace(verdict, others=by_rung)

    def _names_of(self, request: RouteRequest) -> tuple[str, str]:
        """The keyed hashes of what is asked, and of the conversation."""
        prompt = str(replace(self._names, texts=False).row(request.tenant, request.prompt)["prompt_id"])
        return prompt, self._names.conversation(request.tenant, request.options.conversation_id) or prompt


def _again(lesson: Lesson) -> GenerationRequest:
    """The request that was served. Without log-probabilities, which the answers behind cuts are not asked for."""
    sampling = replace(lesson.sampling, logprobs=False, top_logprobs=0)
    expected = 0.0 if lesson.served is None else float(lesson.served.thinking_tokens)
    rung, engine = lesson.ladder.rungs[-1], lesson.engine
    return GenerationRequest(lesson.request.prompt, rung, 0, sampling, expected, lesson.request.session, engine=engine)


def _agree(one: Answer, served: Answer, kind: str) -> bool:
    """Equal answers. Of those that were cut off, as by their caller's limit, the texts say all that there is to say."""
    if not one.known or one.whole != served.whole:
        return False
    return agree(one.text, served.text, kind if served.whole else "text")


def _kept(request: RouteRequest, found: Sequence[Answer]) -> str:
    """The texts as JSON: messages, and the answers by rung."""
    body = {"messages": orjson.loads(chat_form.canonical(request.prompt)), "answers": [one.text for one in found]}
    text = orjson.dumps(body).decode()
    return text if len(text) <= MOST_KEPT else ""
