"""The chat API with the engine's own enforcement of the budget, watched.

Thinking tokens are counted while they stream, as the engine reports them or by token ids, never by deltas: one delta
may hold several tokens. Past the budget and a little slack the request is cancelled, and a second phase answers.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing
from itertools import groupby
from typing import Any

from router.backends.dialects import Dialect
from router.backends.http import Chunk, EngineClient, expect_type, mapped_errors
from router.backends.listing import check_serves
from router.backends.messages import messages, tools
from router.backends.two_phase import Thought, TwoPhase
from router.domain import (
    SLACK,
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
    ToolCall,
    ToolCallDelta,
)
from router.errors import BackendError, InvalidRequest


def request_body(model: str, dialect: Dialect, request: GenerationRequest) -> dict[str, Any]:
    """The chat request. `max_tokens` always leaves room for the answer behind the budget."""
    body: dict[str, Any] = {
        "model": model,
        "messages": messages(request.prompt),
        "temperature": request.sampling.temperature,
        "stream": True,
        **dialect.fields(request),
        **tools(request.tools),
    }
    if request.sampling.seed is not None:
        body["seed"] = request.sampling.seed
    # Engines count the thought into max_tokens; a limit below the budget would end it without an answer.
    if request.budget.tokens is not None:
        body["max_tokens"] = request.budget.tokens + request.sampling.max_answer_tokens
    return body


class Chat:
    """Streams from `/v1/chat/completions`.

    Args:
        fallback: holds floors and finishes answers whose thought went past its budget. It carries neither tools nor
            images, so it is not used where a request has them.
        images: the model takes images.
    """

    def __init__(
        self, engine: EngineClient, model: str, dialect: Dialect, fallback: TwoPhase | None, images: bool = False
    ) -> None:
        self._engine = engine
        self._model = model
        self._dialect = dialect
        self._fallback = fallback
        self._images = images

    async def check_ready(self) -> None:
        """Returns where the engine lists the model. Raises BackendError, which says why it does not."""
        await check_serves(self._engine, self._model)

    async def ready(self) -> bool:
        """True when the engine lists the model."""
        try:
            await self.check_ready()
        except BackendError:
            return False
        return True

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Deltas as they come, then the completion. Raises InvalidRequest, BackendError."""
        if request.prompt.images is not None and not self._images:
            raise InvalidRequest(request.prompt.images, "the served model takes no images")
        fallback = await self._fallback_for(request)
        if request.min_thinking_tokens > 0:
            async with aclosing(self._with_floor(request, fallback)) as events:
                async for event in events:
                    yield event
            return
        state, over = StreamState(self._dialect), False
        body = request_body(self._model, self._dialect, request)
        async with aclosing(self._engine.chunks("/v1/chat/completions", body, body.get("max_tokens"))) as arriving:
            async for chunks in arriving:
                deltas, over = state.read(chunks, request.budget.tokens if fallback is not None else None)
                for delta in deltas:
                    yield delta
                if over:
                    break
        if fallback is None or not over:
            yield state.completion(request)
            return
        # Leaving the block above cancelled the request. The answer continues behind the thought, cut at its budget.
        async with aclosing(fallback.answer(request, await _cut(state, request, fallback))) as events:
            async for event in events:
                yield event

    def _with_floor(self, request: GenerationRequest, fallback: TwoPhase | None) -> AsyncGenerator[GenerationEvent]:
        """The chat API cannot hold a floor, two phases can. Raises InvalidRequest where they are not available."""
        if fallback is not None:
            return fallback.stream(request)
        problem = "this backend cannot hold it" if self._fallback is None else "cannot be held with tools or images"
        raise InvalidRequest("options.min_thinking_tokens", problem)

    async def _fallback_for(self, request: GenerationRequest) -> TwoPhase | None:
        """Two-phase enforcement, if it can carry the request. Raises InvalidRequest where its window is too small."""
        if self._fallback is None or request.tools.offered or request.prompt.images is not None:
            return None
        if not await self._fallback.ready():
            return None
        self._fallback.check(request)
        return self._fallback


async def _cut(state: "StreamState", request: GenerationRequest, fallback: TwoPhase) -> Thought:
    """The thought so far, cut at its budget."""
    ids = state.ids or await fallback.encode(state.text)  # not every engine streams token ids
    return Thought(await fallback.opening(request), ids[: request.budget.tokens], state.thinking_tokens or 0)


class StreamState:
    """What a chat stream has brought so far.

    Attributes:
        thinking_tokens: thinking tokens so far; None where neither the engine nor token ids say.
        ids: token ids drawn while thinking, where the engine sends them.
        text: the text of the thought.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._usage: Mapping[str, Any] = {}
        self._finish: str | None = None
        self._counted_by = CountSource.NONE
        self.thinking_tokens: int | None = None
        self.ids: list[int] = []
        self.text = ""

    def read(self, chunks: Iterable[Chunk], budget: int | None) -> tuple[list[GenerationEvent], bool]:
        """The events in some chunks, and whether the thought has gone past the budget: then the rest is not read.

        Raises BackendError where a chunk is not of the API's shape.
        """
        events: list[GenerationEvent] = []
        with mapped_errors():
            for chunk in chunks:
                events += self._take(chunk)
                if self._over(budget):
                    return list(merged(events)), True
        return list(merged(events)), False

    def completion(self, request: GenerationRequest) -> Completion:
        """The end of the stream. Raises BackendError where the stream had none."""
        if self._finish is None:
            raise BackendError("backend: the stream ended early")
        budget, thought = request.budget.tokens, self.thinking_tokens
        if thought is None and budget == 0:  # no thought arrived, so nobody counted one
            thought = 0
        with mapped_errors():
            total = expect_type(int, self._usage.get("completion_tokens"))
            prompt = expect_type(int, self._usage.get("prompt_tokens"))
        forced = thought is not None and budget is not None and thought >= budget
        reason = FinishReason.FORCED if forced else FinishReason.NATURAL
        return Completion(
            FinishReason.TRUNCATED if self._finish == "length" else reason,
            request.budget,
            Enforcement.HINT if thought is None else Enforcement.NATIVE,
            self._counted_by,
            prompt_tokens=prompt,
            thinking_tokens=thought,
            answer_tokens=None if thought is None or total is None else total - thought,
        )

    def _take(self, chunk: Chunk) -> list[GenerationEvent]:
        events: list[GenerationEvent] = []
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():  # the last chunk has usage alone
            self._finish = choice.get("finish_reason") or self._finish
            events += _deltas(choice.get("delta") or {})
            if text := "".join(event.text for event in events if isinstance(event, ReasoningDelta)):
                self.text += text
                self.ids += expect_type(list, choice.get("token_ids")) or []
        self._count(chunk, any(isinstance(event, ReasoningDelta) for event in events))
        return events

    def _over(self, budget: int | None) -> bool:
        """More was thought than asked for, beyond what engines differ by in their counts."""
        thought = self.thinking_tokens
        return budget is not None and thought is not None and thought > budget + SLACK

    def _count(self, chunk: Chunk, thinking: bool) -> None:
        """Prefer the engine's own count of thinking tokens; else count what was drawn while it was thinking."""
        counted = self._dialect.thought(chunk)
        # Once the engine counts, its number stands: token ids of a chunk may lie on both sides of the end marker.
        if counted is not None:
            self.thinking_tokens, self._counted_by = counted, CountSource.ENGINE
        elif self._counted_by is not CountSource.ENGINE and thinking:
            # While the model thinks, all tokens drawn so far are thinking tokens.
            drawn = self._dialect.generated(chunk)
            found = len(self.ids) if drawn is None else drawn
            if found:
                self.thinking_tokens, self._counted_by = found, CountSource.ROUTER


def merged(events: list[GenerationEvent]) -> Iterator[GenerationEvent]:
    """Join neighbouring deltas of one kind: deltas that arrive together leave together."""
    for kind, run in groupby(events, type):
        if kind in (ReasoningDelta, ContentDelta):
            yield kind("".join(event.text for event in run if isinstance(event, ReasoningDelta | ContentDelta)))
        else:
            yield from run


def _deltas(delta: Mapping[str, Any]) -> list[GenerationEvent]:
    events: list[GenerationEvent] = []
    if reasoning := delta.get("reasoning") or delta.get("reasoning_content"):
        events.append(ReasoningDelta(expect_type(str, reasoning)))
    if content := delta.get("content"):
        events.append(ContentDelta(expect_type(str, content)))
    return events + [_tool_call(piece) for piece in delta.get("tool_calls") or ()]


def _tool_call(piece: Mapping[str, Any]) -> ToolCallDelta:
    function = piece.get("function") or {}
    words = [
        expect_type(str, word) or "" for word in (piece.get("id"), function.get("name"), function.get("arguments"))
    ]
    return ToolCallDelta(expect_type(int, piece.get("index")) or 0, ToolCall(*words))
