"""Budget forcing that works on any engine which completes token ids (s1, arXiv 2501.19393).

Phase 1 thinks for at most the budget and stops at the end marker. Then the marker is appended, however the thought
ended, and phase 2 answers. Both phases work on token ids: no text is tokenised twice, and counts are exact. The second
request finds its prefix in the engine's cache. The end marker must be a single token.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from router.backends.dialects import Piece, TokenCompletionAPI
from router.backends.http import Chunk, EngineClient, mapped_errors
from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
)
from router.errors import BackendError, InvalidRequest


@dataclass(frozen=True, slots=True)
class Markers:
    """The texts around a thought."""

    start: str = "<think>"
    end: str = "</think>"


@dataclass(slots=True)
class Thought:
    """A thought in the making.

    Attributes:
        prompt: token ids before the thought.
        ids: token ids of the thought, without its end marker.
        used: tokens that the engine drew for it; more than `ids` where a thought went past its budget and was cut.
        natural: the thought ended by itself.
    """

    prompt: list[int]
    ids: list[int]
    used: int = 0
    natural: bool = False


class TwoPhase:
    """Thinks, then answers, in two requests."""

    def __init__(self, engine: EngineClient, model: str, completions: TokenCompletionAPI, markers: Markers) -> None:
        self._engine = engine
        self._model = model
        self._completions = completions
        self._markers = markers
        self._start: list[int] = []
        self._end: list[int] = []
        self._window: int | None = None

    async def check_ready(self) -> None:
        """Returns where the engine tokenises as two phases need it. Raises BackendError, which says what is missing."""
        await self._learn()

    async def ready(self) -> bool:
        """True when the engine tokenises, and the end of a thought is one token."""
        try:
            await self.check_ready()
        except BackendError:
            return False
        return True

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Deltas, then the completion. Raises InvalidRequest, BackendError."""
        if request.tools.offered:
            raise InvalidRequest("tools", "budgets are held in two phases here, which cannot parse tool calls")
        if request.prompt.images is not None:
            raise InvalidRequest(request.prompt.images, "budgets are held in two phases here, which take no images")
        await self._learn()
        self.check(request)  # before the engine renders the prompt: a hopeless request costs no call
        thought = Thought(await self.opening(request), [])
        self._fit(request, len(thought.prompt))
        for limit, banned in self._segments(request, thought):
            async with aclosing(self._think(request, thought, limit, banned)) as deltas:
                async for delta in deltas:
                    yield delta
        thought.used = len(thought.ids)
        async with aclosing(self.answer(request, thought)) as events:
            async for event in events:
                yield event

    def check(self, request: GenerationRequest) -> None:
        """Raises InvalidRequest where budget and answer cannot fit the model's window."""
        self._fit(request, 0)

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
        """The prompt's token ids up to the thought; behind an empty thought where the budget is 0."""
        await self._learn()
        thinking = await self._render(request, thinking=True)
        if request.budget.tokens == 0:
            bare = await self._render(request, thinking=False)
            if bare != thinking:  # else the template has no switch, and an empty thought must stand in for it
                return bare
            return [*self._opened(thinking), *self._end]
        return self._opened(thinking)

    async def encode(self, text: str) -> list[int]:
        """A text as token ids. Raises BackendError."""
        with mapped_errors():
            return await self._completions.encode(self._engine, self._model, text)
        raise AssertionError("unreachable")

    async def answer(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[GenerationEvent]:
        """Phase 2: the answer behind a thought that is over, then the completion."""
        ids = thought.prompt if request.budget.tokens == 0 else [*thought.prompt, *thought.ids, *self._end]
        banned = self._start if len(self._start) == 1 else []  # or the model would open its thought again
        finish, answered = None, 0
        async with aclosing(self._complete(request, ids, request.sampling.max_answer_tokens, [], banned)) as arriving:
            async for chunks in arriving:
                pieces = self._read(chunks)
                finish = next((piece.finish for piece in pieces if piece.finish), finish)
                answered += sum(len(piece.ids) for piece in pieces)
                if text := "".join(piece.text for piece in pieces):
                    yield ContentDelta(text)
        if finish is None:  # a proxy or a crash cut the stream: half an answer is not an answer
            raise BackendError("backend: the stream ended early")
        reason = FinishReason.NATURAL if thought.natural else FinishReason.FORCED
        yield Completion(
            FinishReason.TRUNCATED if finish == "length" else reason,
            request.budget,
            Enforcement.TWO_PHASE,
            CountSource.ROUTER,
            prompt_tokens=len(thought.prompt),
            thinking_tokens=thought.used,
            answer_tokens=answered,
        )

    def _segments(self, request: GenerationRequest, thought: Thought) -> Iterator[tuple[int | None, list[int]]]:
        """How far to think, and with which ids banned: below the floor the end marker cannot be drawn.

        Each segment is a request of its own, since an engine bans an id for a whole request.
        """
        for limit, banned in ((request.min_thinking_tokens, self._end), (request.budget.tokens, [])):
            left = self._room(request, thought) if limit is None else limit - len(thought.ids)
            if left is None or left > 0:
                yield left, banned

    def _room(self, request: GenerationRequest, thought: Thought) -> int | None:
        """Tokens that a thought without a cap may take and still leave room for the answer; None = unknown window."""
        if self._window is None:
            return None
        return self._window - len(thought.prompt) - len(thought.ids) - request.sampling.max_answer_tokens - 1

    async def _think(
        self, request: GenerationRequest, thought: Thought, limit: int | None, banned: list[int]
    ) -> AsyncGenerator[ReasoningDelta]:
        """Phase 1: at most `limit` further tokens; their ids, and whether the thought ended, go into `thought`."""
        ids = [*thought.prompt, *thought.ids]
        async with aclosing(self._complete(request, ids, limit, self._end, banned)) as arriving:
            async for chunks in arriving:
                text, ended = self._extend(thought, self._read(chunks))
                if text:
                    yield ReasoningDelta(text)
                if ended:  # closing the stream stops engines that know no stop ids
                    thought.natural = not banned
                    return

    def _extend(self, thought: Thought, pieces: list[Piece]) -> tuple[str, bool]:
        """Append pieces to a thought, up to its end marker; returns their text, and whether the thought ended."""
        end, text = self._end[0], ""
        for piece in pieces:
            marked = end in piece.ids
            thought.ids += piece.ids[: piece.ids.index(end)] if marked else piece.ids
            text += piece.text.partition(self._markers.end)[0]  # a piece may hold the marker and more behind it
            if marked or piece.finish == "stop":
                return text, True
        return text, False

    def _complete(
        self, request: GenerationRequest, ids: list[int], limit: int | None, stop: list[int], banned: list[int]
    ) -> AsyncGenerator[list[Chunk]]:
        """The chunks of a completion of `ids`, at most `limit` tokens long."""
        body = self._completions.body(self._model, ids, limit, request.sampling, stop, banned)
        return self._engine.chunks(self._completions.path, body, limit)

    def _read(self, chunks: list[Chunk]) -> list[Piece]:
        with mapped_errors():
            return [self._completions.piece(chunk) for chunk in chunks]
        raise AssertionError("unreachable")

    async def _render(self, request: GenerationRequest, thinking: bool) -> list[int]:
        with mapped_errors():
            return await self._completions.render(self._engine, self._model, request.prompt, thinking)
        raise AssertionError("unreachable")

    def _opened(self, ids: list[int]) -> list[int]:
        """The ids, followed by the start marker unless the template has already put it there."""
        tail = ids[-len(self._start) - 2 :]  # a line break may stand behind the marker
        if any(tail[i : i + len(self._start)] == self._start for i in range(len(tail))):
            return ids
        return [*ids, *self._start]

    async def _learn(self) -> None:
        """Ask the engine once for the ids of the markers, and for its window. Raises BackendError."""
        if self._end:
            return
        with mapped_errors():
            start = await self._completions.encode(self._engine, self._model, self._markers.start)
            end = await self._completions.encode(self._engine, self._model, self._markers.end)
            self._window = await self._completions.window(self._engine, self._model)
        # A marker of several tokens could be cut in the middle, and could not be banned below a floor.
        if len(end) != 1:
            raise BackendError(f"backend: {self._markers.end} is {len(end)} tokens of this model; it must be one")
        self._start, self._end = start, end
