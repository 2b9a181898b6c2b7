"""Nested answers of an engine: one thought a prompt and sample, cut at every rung and answered behind each cut.

The thought is drawn once, up to the top rung, in one request. Each rung's thought is the beginning of it, by token ids,
so greedy answers are those that serving gives at that rung. A thought that ended by itself is answered once for all
rungs that let it end.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from router.backends import looks
from router.backends.climbing import cut_at
from router.backends.thought import Thought
from router.backends.two_phase import TwoPhase
from router.backends.verified import VerifiedBackend
from router.domain import (
    BudgetLadder,
    FinishReason,
    GenerationRequest,
    ReasoningBudget,
    ReasoningDelta,
)
from router.errors import BackendError
from router.stopping.evidence import PROBE_TOKENS, Probe
from training.collect.answering import request_of
from training.collect.rows import tokens_of_trace
from training.collect.samples import SampleCollector
from training.collect.traces import tried_again
from training.collect.units import Answer, Unit, UnitResult


class NestedCollector(SampleCollector):
    """Runs `concurrency` traces at a time. Raises as SampleCollector does."""

    async def _unit(self, unit: Unit) -> UnitResult:
        ladder = self._recipe.ladder
        top = replace(unit, rung=len(ladder) - 1)
        found = await self._tried(partial(self._answers, request_of(top, self._recipe)))
        if isinstance(found, Answer):
            return await self._scored(unit, [found] * len(ladder))
        return await self._scored(unit, tried_again(found), tokens_of_trace(found))

    async def _answers(self, request: GenerationRequest) -> list[Answer]:
        assert isinstance(self._backend, VerifiedBackend)
        if (phases := self._backend.phases) is None:
            raise BackendError("backend: it continues no token ids; --independent asks for each rung anew")
        return [answer async for answer in cuts(phases, request, self._recipe.ladder.rungs, self._backend.steps.early)]


def obstacle(backend: VerifiedBackend, ladder: BudgetLadder) -> str:
    """Why the thoughts of an engine that was proved cannot be cut to give what is served; "" = they can."""
    if not any(rung.tokens for rung in ladder.rungs):
        return "no rung has a cap at which a thought could be cut"
    return backend.steps.obstacle


async def cuts(
    phases: TwoPhase, request: GenerationRequest, rungs: tuple[ReasoningBudget, ...], early: int = 0
) -> AsyncGenerator[Answer]:
    """Draw one thought, and yield the answer behind its cut at each rung.

    Args:
        request: its budget is the largest of the rungs.
        early: tokens below a budget at which a thought is cut.

    Raises:
        InvalidRequest, BackendError.
    """
    whole, natural = await _thought(phases, _less(request, early)), None
    for rung in rungs:
        at = _less(replace(request, budget=rung), early)
        bare = at.budget.tokens == 0
        cut = Thought(await phases.borders.opening(at), []) if bare else phases.upto(whole, at.budget.tokens)
        if natural is None or not cut.natural:
            answer = await _answer(phases, at, cut)
            natural = answer if cut.natural else None
        else:
            answer = natural
        yield answer


async def _thought(phases: TwoPhase, request: GenerationRequest) -> Thought:
    thought = await phases.begin(request)
    async with aclosing(phases.think(request, thought)) as deltas:
        async for delta in deltas:
            assert isinstance(delta, ReasoningDelta)
    return thought


async def _answer(phases: TwoPhase, request: GenerationRequest, cut: Thought) -> Answer:
    seen, end = await looks.observed(phases, request, cut)
    if end.finish is FinishReason.ABORTED:
        raise BackendError("backend: it gave up in the middle")
    return Answer(
        seen.text,
        end.thinking_tokens,
        end.answer_tokens,
        end.finish.value,
        thinking_ended="natural" if cut.natural else "cut",
        probe=await _probe(phases, request, cut, seen),
    )


async def _probe(phases: TwoPhase, request: GenerationRequest, cut: Thought, seen: Probe) -> Probe:
    """The greedy answer's first tokens: of the answer itself, where that was greedy and is no longer."""
    if request.sampling.temperature != 0 or seen.tokens >= PROBE_TOKENS:
        sampling = replace(request.sampling, temperature=0.0, max_answer_tokens=PROBE_TOKENS)
        seen = await looks.probe(phases, replace(request, sampling=sampling), cut, end=False)
    return replace(seen, end_logprob=await looks.end_logprob(phases, request, cut))


def _less(request: GenerationRequest, early: int) -> GenerationRequest:
    """The request with the budget at which a thought is cut."""
    budget = request.budget
    tokens = None if budget.tokens is None else cut_at(budget.tokens, early)
    return replace(request, budget=replace(budget, tokens=tokens))
