"""Nested answers of an engine: one thought a prompt and sample, cut at every rung and answered behind each cut.

The thought is drawn once, up to the top rung, in one request. Each rung's thought is the beginning of it, by token ids,
so greedy answers are those that serving gives at that rung. A thought that ended by itself is answered once for all
rungs that let it end.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from router.backends import canary
from router.backends.thought import Thought
from router.backends.two_phase import TwoPhase
from router.backends.verified import VerifiedBackend
from router.domain import (
    BudgetLadder,
    Enforcement,
    FinishReason,
    GenerationRequest,
    ReasoningBudget,
    ReasoningDelta,
    Sampling,
)
from router.errors import BackendError, InvalidRequest
from router.stopping.evidence import PROBE_TOKENS, Probe
from training.collect.samples import SampleCollector, answered, request_of
from training.collect.traces import tried_again
from training.collect.units import Answer, Unit, UnitResult, tokens_of_trace

EARLY = (0, 1)
"""Tokens below a budget at which an engine may cut."""

COMPARED = 64
"""Tokens of an answer that is compared with the engine's own."""


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
        return [answer async for answer in cuts(phases, request, self._recipe.ladder.rungs, self._recipe.early)]


async def fit_cuts(backend: VerifiedBackend, ladder: BudgetLadder) -> tuple[int, str]:
    """How an engine's thoughts must be cut to give what is served, and why they cannot be; "" = they can.

    In two phases they can by construction. Where the engine holds budgets by itself, short thoughts are compared: it
    may cut some tokens below a budget, as where it counts a line break that the template wrote.

    Returns:
        Tokens below a budget at which it cuts, and the obstacle.
    """
    if not any(rung.tokens for rung in ladder.rungs):
        return 0, "no rung has a cap at which a thought could be cut"
    if (phases := backend.phases) is None:
        return 0, "the engine continues no token ids"
    if backend.enforcement is Enforcement.TWO_PHASE:
        return 0, ""
    small = ReasoningBudget(str(canary.SMALL), canary.SMALL)
    asked = [GenerationRequest(prompt, small, sampling=Sampling(0.0, COMPARED)) for prompt in canary.PROBES]
    try:
        served = [await answered(backend, request, small) for request in asked]
        found = {early: await _difference(phases, asked, served, early) for early in EARLY}
    except (BackendError, InvalidRequest) as error:
        return 0, str(error)
    return next(((early, "") for early, differs in found.items() if not differs), (0, found[0]))


async def _difference(
    phases: TwoPhase, asked: Sequence[GenerationRequest], served: Sequence[Answer], early: int
) -> str:
    """How the answers of an engine's own enforcement differ from those behind a cut; "" = they do not."""
    for request, its in zip(asked, served, strict=True):
        (cut,) = [answer async for answer in cuts(phases, request, (request.budget,), early)]
        if not same(cut, its):
            return (
                f"with a budget of {canary.SMALL} tokens the engine itself thinks {its.thinking_tokens} and answers "
                f"{its.text[:40]!r}, and a thought that is cut has {cut.thinking_tokens} and {cut.text[:40]!r}; "
                "--enforcement two_phase, here and as a setting of the service, gives what is cut"
            )
    return ""


def same(cut: Answer, served: Answer) -> bool:
    """True where two answers are equal; of two that were cut at their limit, as far as both go.

    Engines count the end marker against the limit of a whole generation, so theirs may end a few tokens earlier.
    """
    cut_short = cut.finish == served.finish == FinishReason.TRUNCATED.value
    shorter, longer = sorted((cut.text, served.text), key=len)
    return cut.thinking_tokens == served.thinking_tokens and (
        longer.startswith(shorter) if cut_short else (cut.text, cut.finish) == (served.text, served.finish)
    )


async def cuts(
    phases: TwoPhase, request: GenerationRequest, rungs: tuple[ReasoningBudget, ...], early: int = 0
) -> AsyncGenerator[Answer]:
    """Draw one thought, and yield the answer behind its cut at each rung.

    Args:
        request: its budget is the largest of the rungs.
        early: tokens below a budget at which the engine's own enforcement cuts.

    Raises:
        InvalidRequest, BackendError.
    """
    whole, natural = await _thought(phases, _less(request, early)), None
    for rung in rungs:
        at = _less(replace(request, budget=rung), early)
        cut = phases.upto(whole, at.budget.tokens) if at.budget.tokens != 0 else Thought(await phases.opening(at), [])
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
    seen, end = await phases.observed(request, cut)
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
        seen = await phases.probe(replace(request, sampling=sampling), cut, end=False)
    return replace(seen, end_logprob=await phases.end_logprob(request, cut))


def _less(request: GenerationRequest, early: int) -> GenerationRequest:
    """The request with a budget of some tokens less, but not 0, which has a template of its own."""
    tokens = request.budget.tokens
    return replace(request, budget=replace(request.budget, tokens=max(tokens - early, 1))) if tokens else request
