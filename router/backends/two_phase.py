"""Budget forcing that works on any engine which completes token ids (s1, arXiv 2501.19393).

Phase 1 thinks for at most the budget and stops at the end marker; then the marker is appended, whatever came before,
and phase 2 answers. All is done on token ids, so that nothing is tokenised twice and counts are exact. The second
request finds its prefix in the engine's cache. The end marker must be one token.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from router.backends.dialects import Piece, TokenCompletionAPI
from router.backends.http import Engine, mapped_errors
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
        prompt: token ids before it.
        ids: its own.
        used: tokens that were really drawn for it.
        natural: it ended by itself.
    """

    prompt: list[int]
    ids: list[int]
    used: int = 0
    natural: bool = False


class TwoPhase:
    """Thinks, then answers, in two requests."""

    def __init__(self, engine: Engine, model: str, completions: TokenCompletionAPI, markers: Markers) -> None:
        self._engine = engine
        self._model = model
        self._completions = completions
        self._markers = markers
        self._start: list[int] = []
        self._end: list[int] = []
        self._window: int | None = None

    async def ready(self) -> bool:
        """True when the engine tokenises, and the end of a thought is one token."""
        try:
            await self._learn()
        except BackendError:
            return False
        return True

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Deltas, then the completion. Raises InvalidRequest, BackendError."""
        if request.tools.offered:
            raise InvalidRequest("tools", "budgets are held in two phases here, which can not parse tool calls")
        if request.prompt.images is not None:
            raise InvalidRequest(request.prompt.images, "budgets are held in two phases here, which take no images")
        await self._learn()
        self.check(request)
        thought = Thought(await self.opening(request), [])
        self._fit(request, len(thought.prompt))
        async with aclosing(self._think(request, thought)) as deltas:
            async for text in deltas:
                yield ReasoningDelta(text)
        thought.used = len(thought.ids)
        async with aclosing(self.answer(request, thought)) as events:
            async for event in events:
                yield event

    def check(self, request: GenerationRequest) -> None:
        """Raises InvalidRequest where budget and answer can not fit the model's window."""
        self._fit(request, 0)

    def _fit(self, request: GenerationRequest, prompt: int) -> None:
        """Names what is too long: the prompt, where it is known, the budget alone, or the answer behind it."""
        budget = request.budget.tokens or 0
        wanted = prompt + budget + request.sampling.max_answer_tokens
        if self._window is None or wanted < self._window:
            return
        field = "options.max_thinking_tokens" if budget >= self._window else "sampling.max_answer_tokens"
        told = f"prompt, budget and answer, {wanted} tokens, exceed the model's window of {self._window}"
        raise InvalidRequest("messages" if prompt else field, told)

    async def opening(self, request: GenerationRequest) -> list[int]:
        """The prompt's ids up to the thought, or behind an empty one where the budget is 0."""
        await self._learn()
        thinking = await self._render(request, thinking=True)
        if request.budget.tokens == 0:
            bare = await self._render(request, thinking=False)
            if bare != thinking:
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
        banned = self._start if len(self._start) == 1 else []  # the thought is not opened again
        finish, answered = None, 0
        most = request.sampling.max_answer_tokens
        async with aclosing(self._pieces(request, ids, most, [], banned)) as pieces:
            async for some in pieces:
                finish = next((piece.finish for piece in some if piece.finish), finish)
                answered += sum(len(piece.ids) for piece in some)
                if text := "".join(piece.text for piece in some):
                    yield ContentDelta(text)
        if finish is None:
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

    async def _think(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[str]:
        """The thought's text; its ids and how it ended go into `thought`. Below the floor it can not end."""
        for upto, banned in ((request.floor, self._end), (request.budget.tokens, [])):
            most = self._room(request, thought) if upto is None else upto - len(thought.ids)
            if most is not None and most <= 0:
                continue
            async with aclosing(self._segment(request, thought, most, banned)) as texts:
                async for text in texts:
                    yield text

    def _room(self, request: GenerationRequest, thought: Thought) -> int | None:
        """Tokens that a thought without a cap may have, so that the answer still fits."""
        if self._window is None:
            return None
        return self._window - len(thought.prompt) - len(thought.ids) - request.sampling.max_answer_tokens - 1

    async def _segment(
        self, request: GenerationRequest, thought: Thought, most: int | None, banned: list[int]
    ) -> AsyncGenerator[str]:
        behind, end = [*thought.prompt, *thought.ids], self._end[0]
        async with aclosing(self._pieces(request, behind, most, self._end, banned)) as pieces:
            async for some in pieces:
                shown, over = "", False
                for piece in some:
                    marked = end in piece.ids
                    thought.ids += piece.ids[: piece.ids.index(end)] if marked else piece.ids
                    shown += piece.text.partition(self._markers.end)[0]
                    if over := marked or piece.finish == "stop":
                        break
                if shown:
                    yield shown
                if over:
                    thought.natural = not banned
                    return

    async def _pieces(
        self, request: GenerationRequest, ids: list[int], most: int | None, stop: list[int], banned: list[int]
    ) -> AsyncGenerator[list[Piece]]:
        body = self._completions.body(self._model, ids, most, request.sampling, stop, banned)
        async with aclosing(self._engine.events(self._completions.path, body)) as arriving:
            async for chunks in arriving:
                with mapped_errors():
                    pieces = [self._completions.piece(chunk) for chunk in chunks]
                yield pieces

    async def _render(self, request: GenerationRequest, thinking: bool) -> list[int]:
        with mapped_errors():
            return await self._completions.render(self._engine, self._model, request.prompt, thinking)
        raise AssertionError("unreachable")

    def _opened(self, ids: list[int]) -> list[int]:
        """Behind the start marker, which some templates already end with."""
        tail = ids[-len(self._start) - 2 :]  # a template may add a line break
        if any(tail[i : i + len(self._start)] == self._start for i in range(len(tail))):
            return ids
        return [*ids, *self._start]

    async def _learn(self) -> None:
        """The markers' ids, asked for once."""
        if self._end:
            return
        with mapped_errors():
            start = await self._completions.encode(self._engine, self._model, self._markers.start)
            end = await self._completions.encode(self._engine, self._model, self._markers.end)
            self._window = await self._completions.window(self._engine, self._model)
        if len(end) != 1:
            raise BackendError(f"backend: {self._markers.end} is {len(end)} tokens of this model, and must be one")
        self._start, self._end = start, end
