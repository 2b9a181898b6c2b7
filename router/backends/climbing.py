"""A thought in two phases that is had step by step: thought on from its token ids, and probed behind a cut."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from router.backends import looks
from router.backends.thought import Thought
from router.backends.two_phase import TwoPhase
from router.domain import (
    Completion,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningBudget,
    ReasoningDelta,
)
from router.stopping.evidence import Probe

NO_THOUGHT = ReasoningBudget("0", 0)


def cut_at(budget: int, early: int) -> int:
    """Tokens at which a thought within a budget is cut: some less, but not 0, which has a template of its own."""
    return budget and max(budget - early, 1)


class TwoPhaseClimb:
    """Implements `Climb`. A cut before the first token is answered as a budget of 0 is.

    Args:
        request: its budget bounds the thought.
        early: tokens below a budget at which a thought is cut, as `cutting` finds out.
    """

    def __init__(self, phases: TwoPhase, request: GenerationRequest, early: int = 0) -> None:
        self._phases = phases
        self._request = request
        self._early = early
        self._thought: Thought | None = None

    @property
    def tokens(self) -> int:
        """Thinking tokens so far."""
        return 0 if self._thought is None else len(self._thought.ids)

    @property
    def ended(self) -> bool:
        """The thought has ended by itself, or the engine has given up."""
        return self._thought is not None and (self._thought.natural or self._thought.failed is not None)

    @property
    def greedy(self) -> bool:
        """Answers are drawn greedily; an engine's own default may be anything."""
        return self._request.sampling.temperature == 0

    async def think(self, upto: int | None) -> AsyncGenerator[ReasoningDelta]:
        """Think on, to `upto` tokens in all and no further than the budget. Raises InvalidRequest, BackendError."""
        thought = await self._begun()
        if self.ended:
            return
        async with aclosing(self._phases.think(self._within(upto), thought)) as deltas:
            async for delta in deltas:
                yield delta

    async def probe(self, tokens: int, *, end: bool = True) -> Probe:
        """The greedy answer behind the thought as it is, of at most `tokens`. Raises InvalidRequest, BackendError."""
        request, thought = await self._cut()
        most = min(tokens, request.sampling.max_answer_tokens)
        sampling = replace(request.sampling, temperature=0.0, max_answer_tokens=most)
        return await looks.probe(self._phases, replace(request, sampling=sampling), thought, end=end)

    def fork(self) -> "TwoPhaseClimb":
        """The same thought as it is now; neither changes the other."""
        fork = TwoPhaseClimb(self._phases, self._request, self._early)
        fork._thought = None if self._thought is None else replace(self._thought, ids=list(self._thought.ids))
        return fork

    async def recall(self, reasoning: str) -> None:
        """Take up a thought that was had before, by its text. Raises InvalidRequest, BackendError."""
        self._thought = await self._phases.recalled(self._request, reasoning)

    def upto(self, budget: ReasoningBudget) -> "TwoPhaseClimb":
        """A recalled thought as a smaller budget would have had it."""
        assert self._thought is not None
        cut = TwoPhaseClimb(self._phases, replace(self._request, budget=budget), self._early)
        at = None if budget.tokens is None else cut_at(budget.tokens, self._early)
        cut._thought = self._phases.upto(self._thought, at)
        return cut

    def taken(self, probe: Probe) -> Completion:
        """The completion, where the probe just had is the answer."""
        return Completion(
            FinishReason.FORCED,
            self._request.budget,
            Enforcement.TWO_PHASE,
            CountSource.ROUTER,
            prompt_tokens=None if self._thought is None else len(self._thought.prompt),
            thinking_tokens=self.tokens,
            answer_tokens=probe.tokens,
            stop=probe.stop,
        )

    async def answer(self) -> AsyncGenerator[GenerationEvent]:
        """The answer behind the thought as it is, and the completion. Raises InvalidRequest, BackendError."""
        request, thought = await self._cut()
        async with aclosing(self._phases.answer(request, thought)) as events:
            async for event in events:
                yield replace(event, budget=self._request.budget) if isinstance(event, Completion) else event

    async def _begun(self) -> Thought:
        if self._thought is None:
            self._thought = await self._phases.begin(self._request)
        return self._thought

    async def _cut(self) -> tuple[GenerationRequest, Thought]:
        """What to answer, and behind what."""
        thought = await self._begun()
        if thought.ids or self.ended:
            return self._request, thought
        bare = replace(self._request, budget=NO_THOUGHT)
        return bare, Thought(await self._phases.borders.opening(bare), [])

    def _within(self, upto: int | None) -> GenerationRequest:
        """The request with a budget of at most `upto` tokens, as the engine counts it, and a floor within it."""
        caps = [cap for cap in (upto, self._request.budget.tokens) if cap is not None]
        if not caps:
            return self._request
        cap = cut_at(min(caps), self._early)
        floor = min(self._request.min_thinking_tokens, cap)
        return replace(self._request, budget=ReasoningBudget(str(cap), cap), min_thinking_tokens=floor)
