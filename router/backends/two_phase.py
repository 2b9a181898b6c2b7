"""Budget forcing that works on any engine which completes token ids (s1, arXiv 2501.19393).

Phase 1 thinks for at most the budget and stops at the end marker. Then the marker is appended, however the thought
ended, and phase 2 answers. A thought that was cut gets the closing cue before its marker. Both phases work on token
ids: no text is tokenised twice, and counts are exact. The second request finds its prefix in the engine's cache.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from router.backends.borders import Borders
from router.backends.first_phase import ThoughtPhase
from router.backends.http import Chunk
from router.backends.markers import Markers
from router.backends.request_fields import Taken, check
from router.backends.second_phase import AnswerPhase
from router.backends.thought import Thought
from router.backends.token_client import TokenClient
from router.domain import GenerationEvent, GenerationRequest, ReasoningDelta
from router.errors import BackendError, BackendTimeout


class TwoPhase:
    """Thinks, then answers, in two requests.

    Args:
        markers: a text that is "" there is the one of the model's family.

    Attributes:
        client: asks the engine.
        borders: what stands around a thought.
    """

    def __init__(self, client: TokenClient, markers: Markers) -> None:
        self.client = client
        self.borders = Borders(client, markers)
        self._first = ThoughtPhase(client, self.borders)

    @property
    def taken(self) -> Taken:
        """The fields of a request that two phases take here."""
        return self.client.api.taken

    def without_cue(self) -> "TwoPhase":
        """The same, where a thought that is cut ends with its marker alone."""
        return TwoPhase(self.client, replace(self.borders.markers, cue=""))

    async def check_ready(self) -> None:
        """Returns where the engine tokenises as two phases need it. Raises BackendError, which says what is missing."""
        await self.borders.learn()

    async def ready(self) -> bool:
        """True when the engine tokenises."""
        try:
            await self.check_ready()
        except BackendError:
            return False
        return True

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Deltas, then the completion. Raises InvalidRequest, BackendError."""
        thought = await self.begin(request)
        async with aclosing(self.think(request, thought)) as deltas:
            async for delta in deltas:
                yield delta
        async with aclosing(self.answer(request, thought)) as events:
            async for event in events:
                yield event

    async def begin(self, request: GenerationRequest) -> Thought:
        """A thought that has not begun. Raises InvalidRequest, BackendError."""
        check(request, self.taken, "budgets are held in two phases here, which")
        given = request.prompt.begun is not None and bool(request.prompt.begun.reasoning)
        await self.borders.learn()
        self.borders.check(request)  # before the engine renders the prompt: a hopeless request costs no call
        thought = Thought(await self.borders.opening(request), [], natural=given, given=given)
        self.borders.check(request, thought)
        return thought

    async def recalled(self, request: GenerationRequest, reasoning: str) -> Thought:
        """A thought that was had before and is over, by its text. Raises InvalidRequest, BackendError."""
        thought = await self.begin(request)
        thought.ids, thought.natural = self.borders.unmarked(await self.client.encode(reasoning)), True
        thought.used = len(thought.ids)
        return thought

    def think(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[ReasoningDelta]:
        """Phase 1: think on until the budget is used or the thought ends. Raises BackendError."""
        return self._first.think(request, thought)

    def upto(self, thought: Thought, budget: int | None) -> Thought:
        """The thought as a smaller budget would have had it."""
        return thought.upto(budget, len(self.borders.end))

    def answer_phase(self, request: GenerationRequest, thought: Thought) -> AnswerPhase:
        """What reads the answer behind a thought that is over."""
        return AnswerPhase(request, thought, self.borders.markers)

    async def answer(
        self, request: GenerationRequest, thought: Thought, phase: AnswerPhase | None = None
    ) -> AsyncGenerator[GenerationEvent]:
        """Phase 2: the answer behind a thought that is over, then the completion. Raises BackendError.

        Args:
            phase: reads it; None = a new one does.
        """
        phase = phase or self.answer_phase(request, thought)
        if thought.failed is None:
            try:
                async with aclosing(await self._completed(request, thought)) as arriving:
                    async for chunks in arriving:
                        for event in phase.read(self.client.read(chunks)):
                            yield event
                        if phase.over:
                            break
            except BackendTimeout:
                if not phase.ended:  # else the answer is whole, and only the end of the stream is missing
                    raise
        for event in phase.rest():
            yield event
        yield phase.completion()

    async def _completed(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[list[Chunk]]:
        """The chunks of the answer."""
        client, start, sampling = self.client, self.borders.start, request.sampling
        ids = [*thought.prompt, *thought.ids, *(await self.borders.before_answer(request, thought))]
        banned = start if len(start) == 1 else []  # or the model would open its thought again
        asked = client.api.answered(sampling)
        return client.complete(ids, sampling, sampling.max_answer_tokens, banned=banned, extra=asked)
