"""Budget forcing that works on any engine which completes token ids (s1, arXiv 2501.19393).

Phase 1 thinks for at most the budget and stops at the end marker. Then the marker is appended, however the thought
ended, and phase 2 answers. A thought that was cut gets the closing cue before its marker. Both phases work on token
ids: no text is tokenised twice, and counts are exact. The second request finds its prefix in the engine's cache.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from router.backends import families
from router.backends.completions import Piece, TokenCompletionAPI
from router.backends.counting import estimate
from router.backends.engine_fields import Body
from router.backends.failures import MappedErrors
from router.backends.http import Chunk, EngineClient
from router.backends.markers import Markers
from router.backends.request_fields import Taken, check
from router.backends.second_phase import AnswerPhase
from router.backends.thought import Thought, ThoughtReader
from router.backends.token_ids import find_ids
from router.domain import (
    Completion,
    ContentDelta,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
    Sampling,
)
from router.errors import BackendError, BackendTimeout, InvalidRequest
from router.stopping.evidence import Probe, probed

SEEDS = 1 << 31
"""Seeds that every engine takes lie below."""

CONTEXT = 4
"""Token ids before a piece with which it is decoded: tokenizers drop a space at the start of a text."""

WAIT = "Wait"
"""Makes a thought that has ended below its floor go on (s1)."""

GAP = "\n\n"
"""Stands between a thought and the beginning of an answer."""

MOST_WAITS = 16
"""How often a thought is made to go on before it may end below its floor: each time is a request."""


class TwoPhase:
    """Thinks, then answers, in two requests.

    Args:
        markers: a text that is "" there is the one of the model's family.
    """

    def __init__(self, engine: EngineClient, model: str, completions: TokenCompletionAPI, markers: Markers) -> None:
        self._engine = engine
        self._model = model
        self._completions = completions
        self._markers = markers
        self._start: list[int] = []
        self._end: list[int] = []
        self._closing: list[int] = []
        self._wait: list[int] = []
        self._cue: list[int] = []
        self._window: int | None = None

    @property
    def taken(self) -> Taken:
        """The fields of a request that two phases take here."""
        return self._completions.taken

    def without_cue(self) -> "TwoPhase":
        """The same, where a thought that is cut ends with its marker alone."""
        return TwoPhase(self._engine, self._model, self._completions, replace(self._markers, cue=""))

    async def check_ready(self) -> None:
        """Returns where the engine tokenises as two phases need it. Raises BackendError, which says what is missing."""
        await self._learn()

    async def known_markers(self) -> Markers:
        """The markers as given, or of the model's family. Raises BackendError where the engine does not answer."""
        self._markers = await families.find(self._engine, self._model, self._completions, self._markers)
        return self._markers

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
        await self._learn()
        self.check(request)  # before the engine renders the prompt: a hopeless request costs no call
        thought = Thought(await self.opening(request), [], natural=given, given=given)
        self._fit(request, len(thought.prompt) + _begun_tokens(request))
        return thought

    async def recalled(self, request: GenerationRequest, reasoning: str) -> Thought:
        """A thought that was had before and is over, by its text. Raises InvalidRequest, BackendError."""
        thought = await self.begin(request)
        thought.ids, thought.natural = self.unmarked(await self.encode(reasoning)), True
        thought.used = len(thought.ids)
        return thought

    async def think(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[ReasoningDelta]:
        """Phase 1: think on until the budget is used or the thought ends. Raises BackendError."""
        for phase in (self._up_to_the_floor, self._up_to_the_cap):
            async with aclosing(phase(request, thought)) as deltas:
                async for delta in deltas:
                    yield delta
        thought.used = len(thought.ids)

    def check(self, request: GenerationRequest) -> None:
        """Raises InvalidRequest where budget and answer cannot fit the model's window."""
        self._fit(request, 0)

    def has_room(self, request: GenerationRequest, thought: Thought) -> bool:
        """True where an answer fits behind a thought."""
        room = self._room(request, thought)
        return room is None or room >= 0

    def _fit(self, request: GenerationRequest, prompt: int) -> None:
        """Refuse what exceeds the window, and name the part at fault: the prompt, the budget, or the answer."""
        budget = request.budget.tokens or 0
        wanted = prompt + budget + request.sampling.max_answer_tokens
        if self._window is None or wanted < self._window:
            return
        field = "options.max_thinking_tokens" if budget >= self._window else "sampling.max_answer_tokens"
        problem = f"prompt, budget and answer, {wanted} tokens, exceed the model's window of {self._window}"
        raise InvalidRequest("messages" if prompt else field, problem)

    async def opening(self, request: GenerationRequest) -> list[int]:
        """The prompt's token ids up to the thought; behind an empty thought where the budget is 0.

        A thought that the caller gives is part of it, up to its end marker.
        """
        await self._learn()
        thinking = await self._render(request, thinking=True)
        if (begun := request.prompt.begun) is not None and begun.reasoning:
            return [*self._opened(thinking), *(await self.encode(begun.reasoning))]
        if request.budget.tokens == 0:
            bare = await self._render(request, thinking=False)
            # vLLM begins to hold a form behind an end marker alone, so that a template without one will not do.
            marked = request.sampling.response_format is None or find_ids(bare, self._end) is not None
            if bare != thinking and marked:  # else an empty thought must stand in for what the template does not write
                return bare
            return [*self._opened(thinking), *self._closing]
        return self._opened(thinking)

    async def encode(self, text: str) -> list[int]:
        """A text as token ids. Raises BackendError."""
        with MappedErrors():
            return await self._completions.encode(self._engine, self._model, text)

    def unmarked(self, ids: list[int]) -> list[int]:
        """The ids up to the first end marker."""
        return ids[: find_ids(ids, self._end)]

    def answer(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[GenerationEvent]:
        """Phase 2: the answer behind a thought that is over, then the completion. Raises BackendError."""
        return self._answer(request, thought, AnswerPhase(request, thought, self._markers))

    async def probe(self, request: GenerationRequest, thought: Thought, *, end: bool = True) -> Probe:
        """The answer of phase 2, with its log-probabilities and without the completion. Raises BackendError.

        Args:
            end: ask for the log-probability of the end marker as well, which is another request.
        """
        if not end:
            return (await self.observed(request, thought))[0]
        (probe, _), ends = await asyncio.gather(self.observed(request, thought), self.end_logprob(request, thought))
        return replace(probe, end_logprob=ends)

    async def observed(self, request: GenerationRequest, thought: Thought) -> tuple[Probe, Completion]:
        """The answer of phase 2 with its log-probabilities, and its completion. Raises BackendError."""
        request = replace(request, sampling=replace(request.sampling, logprobs=True, top_logprobs=0))
        phase, text, end = AnswerPhase(request, thought, self._markers), "", None
        async with aclosing(self._answer(request, thought, phase)) as events:
            async for event in events:
                text += event.text if isinstance(event, ContentDelta) else ""
                end = event if isinstance(event, Completion) else end
        assert end is not None
        whole = end.finish in (FinishReason.NATURAL, FinishReason.FORCED)
        return probed(text, phase.drawn or estimate(text), whole, phase.logprobs, stop=end.stop), end

    async def end_logprob(self, request: GenerationRequest, thought: Thought) -> float | None:
        """Log-probability of the end marker as the next token of a thought that was cut.

        Of a marker beyond the likeliest tokens it is that of the last of them, which is more. None where there is no
        such token, or the engine does not say.
        """
        if len(self._end) != 1 or not thought.ids or thought.natural or thought.failed is not None:
            return None
        chances: dict[int | str, float] = {}
        one = replace(request, sampling=Sampling(temperature=0.0, seed=request.sampling.seed))
        with suppress(BackendError):  # evidence, without which there is an answer all the same
            ids, asked = [*thought.prompt, *thought.ids], self._completions.likeliest
            async with aclosing(self._complete(one, ids, 1, [], [], asked)) as arriving:
                async for chunks in arriving:
                    with MappedErrors():
                        for chunk in chunks:
                            chances |= self._completions.chances(chunk)
        if not chances:
            return None
        return chances.get(self._end[0], chances.get(self._markers.end, min(chances.values())))

    def upto(self, thought: Thought, budget: int | None) -> Thought:
        """The thought as a smaller budget would have had it."""
        return thought.upto(budget, len(self._end))

    async def _answer(
        self, request: GenerationRequest, thought: Thought, phase: AnswerPhase
    ) -> AsyncGenerator[GenerationEvent]:
        if thought.failed is None:
            ids = [*thought.prompt, *thought.ids, *(await self._before_answer(request, thought))]
            banned = self._start if len(self._start) == 1 else []  # or the model would open its thought again
            most, extra = request.sampling.max_answer_tokens, self._completions.answered(request.sampling)
            try:
                async with aclosing(self._complete(request, ids, most, [], banned, extra)) as arriving:
                    async for chunks in arriving:
                        for event in phase.read(self._read(chunks)):
                            yield event
                        if phase.over:
                            break
            except BackendTimeout:
                if not phase.ended:  # else the answer is whole, and only the end of the stream is missing
                    raise
        for event in phase.rest():
            yield event
        yield phase.completion()

    async def _before_answer(self, request: GenerationRequest, thought: Thought) -> list[int]:
        """The ids between a thought and what the model answers: cue, end marker, and the beginning that a caller gives.

        A budget of 0 has its end marker in the prompt.
        """
        closed = request.budget.tokens == 0 and not thought.given
        closing = [] if closed else [*([] if thought.natural else self._cue), *self._closing]
        begun = request.prompt.begun
        if begun is None or not begun.content:
            return closing
        # Models put an empty line between a thought and an answer, unless a marker opens the answer.
        gap = "" if closed or self._markers.answer else GAP
        return [*closing, *(await self.encode(gap + begun.content))]

    async def _up_to_the_floor(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[ReasoningDelta]:
        """A request of its own, since an engine bans an id for a whole request.

        A marker of several tokens cannot be banned: its first one may be an ordinary word, such as "<". A thought that
        ends below the floor goes on behind WAIT.
        """
        floor, banned = request.min_thinking_tokens, self._end if len(self._end) == 1 else []
        for wait in range(MOST_WAITS + 1):
            if wait and len(thought.ids) < floor:
                thought.ids += self._wait[: floor - len(thought.ids)]
                thought.natural = False
                yield ReasoningDelta(WAIT)
            if (left := floor - len(thought.ids)) <= 0 or thought.failed is not None:
                return
            async with aclosing(self._think(request, thought, left, banned)) as deltas:
                async for delta in deltas:
                    yield delta

    async def _up_to_the_cap(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[ReasoningDelta]:
        cap = request.budget.tokens
        left = self._room(request, thought) if cap is None else cap - len(thought.ids)
        if thought.failed is not None or thought.natural or (left is not None and left <= 0):
            return
        async with aclosing(self._think(request, thought, left, [])) as deltas:
            async for delta in deltas:
                yield delta

    def _room(self, request: GenerationRequest, thought: Thought) -> int | None:
        """Tokens that a thought without a cap may take and still leave room for the answer; None = unknown window."""
        if self._window is None:
            return None
        closing = len(self._cue) + len(self._closing) + _begun_tokens(request)
        return self._window - len(thought.prompt) - len(thought.ids) - request.sampling.max_answer_tokens - closing

    async def _think(
        self, request: GenerationRequest, thought: Thought, limit: int | None, banned: list[int]
    ) -> AsyncGenerator[ReasoningDelta]:
        """Phase 1: at most `limit` further tokens; their ids, and whether the thought ended, go into `thought`."""
        first, ids = len(thought.ids), [*thought.prompt, *thought.ids]
        reader = ThoughtReader(thought, limit, self._end, self._markers.end)
        async with aclosing(self._complete(request, ids, limit, self._end, banned, {})) as arriving:
            async for chunks in arriving:
                if text := reader.read(self._read(chunks)):
                    yield ReasoningDelta(text)
                if reader.over:  # closing the stream stops engines that know no stop ids
                    break
        if text := reader.close():
            yield ReasoningDelta(text)
        if reader.torn is not None:
            thought.ids += await self._before_marker(thought.ids, *reader.torn)
        if reader.text and len(thought.ids) == first:  # the engine sends no ids, and the answer must follow the thought
            thought.ids += (await self.encode("".join(reader.text)))[:limit]
        thought.natural = reader.ended and not banned

    async def _before_marker(self, ids: list[int], torn: list[int], text: str) -> list[int]:
        """The ids of a torn piece that come before the marker: as many as its text before the marker has.

        Where the engine decodes nothing, none of them are kept: the thought is cut a little earlier.
        """
        try:
            context = ids[-CONTEXT:]
            start = len(await self._decode(context)) if context else 0
            kept, beyond = 0, len(torn)
            while beyond - kept > 1:
                middle = (kept + beyond) // 2
                length = len(await self._decode([*context, *torn[:middle]])) - start
                kept, beyond = (middle, beyond) if length <= len(text) else (kept, middle)
        except BackendError:
            return []
        return torn[:kept]

    async def _decode(self, ids: list[int]) -> str:
        with MappedErrors():
            return await self._completions.decode(self._engine, self._model, ids)

    def _complete(
        self,
        request: GenerationRequest,
        ids: list[int],
        limit: int | None,
        stop: list[int],
        banned: list[int],
        extra: Body,
    ) -> AsyncGenerator[list[Chunk]]:
        """The chunks of a completion of `ids`, at most `limit` tokens long."""
        body = self._completions.body(self._model, ids, limit, _sampling_at(request, ids), stop, banned) | extra
        return self._engine.chunks(self._completions.path, body, limit)

    def _read(self, chunks: list[Chunk]) -> list[Piece]:
        with MappedErrors():
            return [self._completions.piece(chunk) for chunk in chunks]

    async def _render(self, request: GenerationRequest, thinking: bool) -> list[int]:
        with MappedErrors():
            return await self._completions.render(self._engine, self._model, request.prompt.before, thinking)

    def _opened(self, ids: list[int]) -> list[int]:
        """The ids, followed by the start marker unless the template has already put it there."""
        tail = ids[-len(self._start) - 2 :]  # a line break may stand behind the marker
        if any(tail[i : i + len(self._start)] == self._start for i in range(len(tail))):
            return ids
        return [*ids, *self._start]

    async def _learn(self) -> None:
        """Ask the engine once for the ids of markers and cue, and for its window. Raises BackendError."""
        if self._end:
            return
        markers = await self.known_markers()
        start, end = await self.encode(markers.start), await self.encode(markers.end)
        if not end:
            raise BackendError(f"backend: its tokenizer makes no token of the end marker {markers.end!r}; is it right?")
        self._closing = [*end, *(await self.encode(markers.answer) if markers.answer else [])]
        if len(end) > 1:
            self._wait = await self.encode(WAIT)
        if markers.cue:
            self._cue = await self.encode(f"\n{markers.cue}\n")
        with MappedErrors():
            self._window = await self._completions.window(self._engine, self._model)
        self._start, self._end = start, end


def _begun_tokens(request: GenerationRequest) -> int:
    """About how many tokens the beginning of an answer has; 0 where there is none."""
    begun = request.prompt.begun
    return 0 if begun is None else estimate(begun.content)


def _sampling_at(request: GenerationRequest, ids: list[int]) -> Sampling:
    """The sampling of one request of a generation: with its seed, each would draw the same random numbers again."""
    sampling = request.sampling
    return sampling if sampling.seed is None else replace(sampling, seed=(sampling.seed + len(ids)) % SEEDS)
