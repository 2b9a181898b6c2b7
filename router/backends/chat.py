"""The chat API, with the engine's own enforcement of the budget, watched.

Thinking tokens are counted while they stream, as the engine reports them or by token ids, never by deltas. Past the
budget and a little slack the request is cancelled, and the answer is had in a second phase.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from itertools import groupby
from typing import Any

from router.backends.dialects import Dialect
from router.backends.http import MALFORMED_RESPONSE, Engine, expect_type, mapped_errors
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
    """The chat request; there is always room for the answer behind the budget."""
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
    if request.budget.tokens is not None:
        body["max_tokens"] = request.budget.tokens + request.sampling.max_answer_tokens
    return body


class Chat:
    """Streams from `/v1/chat/completions`.

    Args:
        fallback: holds floors and finishes answers past their budget; never where tools or images are involved, which
            it can not carry.
        images: the model takes them.
    """

    def __init__(
        self, engine: Engine, model: str, dialect: Dialect, fallback: TwoPhase | None, images: bool = False
    ) -> None:
        self._engine = engine
        self._model = model
        self._dialect = dialect
        self._fallback = fallback
        self._images = images

    async def ready(self) -> bool:
        """True when the engine lists the model."""
        try:
            listed = await self._engine.ask("/v1/models")
            return any(entry["id"] == self._model for entry in listed["data"])
        except (BackendError, *MALFORMED_RESPONSE):
            return False

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Deltas as they come, then the completion. Raises InvalidRequest, BackendError."""
        if request.prompt.images is not None and not self._images:
            raise InvalidRequest(request.prompt.images, "the served model takes no images")
        fallback = await self._fallback_for(request)
        if fallback is not None:
            fallback.check(request)
        if request.floor > 0:
            if fallback is None:
                told = (
                    "this backend can not hold a floor" if self._fallback is None else "no floor with tools or images"
                )
                raise InvalidRequest("options.min_thinking_tokens", told)
            async with aclosing(fallback.stream(request)) as held:
                async for event in held:
                    yield event
            return
        state = StreamState(self._dialect)
        body = request_body(self._model, self._dialect, request)
        async with aclosing(self._engine.events("/v1/chat/completions", body)) as arriving:
            async for chunks in arriving:
                taken: list[GenerationEvent] = []
                over = False
                with mapped_errors():
                    for chunk in chunks:
                        taken += state.take(chunk)
                        if over := fallback is not None and state.over(request.budget.tokens):
                            break
                for event in merged(taken):
                    yield event
                if over:
                    break
            else:
                with mapped_errors():
                    completion = state.completion(request)
                yield completion
                return
        # The request above is cancelled. The answer goes on behind the thought as far as it was allowed.
        assert fallback is not None
        ids = state.ids or await fallback.encode(state.text)
        thought = Thought(await fallback.opening(request), ids[: request.budget.tokens], state.thought or 0)
        async with aclosing(fallback.answer(request, thought)) as answer:
            async for event in answer:
                yield event

    async def _fallback_for(self, request: GenerationRequest) -> TwoPhase | None:
        if self._fallback is None or request.tools.offered or request.prompt.images is not None:
            return None
        return self._fallback if await self._fallback.ready() else None


class StreamState:
    """What a stream has said so far.

    Attributes:
        thought: thinking tokens so far; None where nobody says.
        ids: token ids drawn while thinking, where the engine tells them.
        text: the thought.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._usage: Mapping[str, Any] = {}
        self._finish: str | None = None
        self._counted = CountSource.NONE
        self._thinking = True
        self.thought: int | None = None
        self.ids: list[int] = []
        self.text = ""

    def take(self, chunk: Mapping[str, Any]) -> list[GenerationEvent]:
        """The events in a chunk. Raises TypeError and its like where it is not of the API's shape."""
        events: list[GenerationEvent] = []
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            self._finish = choice.get("finish_reason") or self._finish
            events += _deltas(choice.get("delta") or {})
            if text := "".join(event.text for event in events if isinstance(event, ReasoningDelta)):
                self.text += text
                self.ids += expect_type(list, choice.get("token_ids")) or []
        self._count(chunk, any(isinstance(event, ReasoningDelta) for event in events))
        return events

    def over(self, budget: int | None) -> bool:
        """More was thought than asked for, beyond what engines differ by."""
        return budget is not None and self.thought is not None and self.thought > budget + SLACK

    def completion(self, request: GenerationRequest) -> Completion:
        """The end. Raises BackendError where the stream had none."""
        if self._finish is None:
            raise BackendError("backend: the stream ended early")
        budget, thought = request.budget.tokens, self.thought
        if thought is None and budget == 0:
            thought = 0
        total = expect_type(int, self._usage.get("completion_tokens"))
        forced = thought is not None and budget is not None and thought >= budget
        reason = FinishReason.FORCED if forced else FinishReason.NATURAL
        return Completion(
            FinishReason.TRUNCATED if self._finish == "length" else reason,
            request.budget,
            Enforcement.HINT if thought is None else Enforcement.NATIVE,
            self._counted,
            prompt_tokens=expect_type(int, self._usage.get("prompt_tokens")),
            thinking_tokens=thought,
            answer_tokens=None if thought is None or total is None else total - thought,
        )

    def _count(self, chunk: Mapping[str, Any], thinking: bool) -> None:
        counted = self._dialect.thought(chunk)
        if counted is not None:
            self.thought, self._counted = counted, CountSource.ENGINE
        elif self._counted is not CountSource.ENGINE and thinking:
            drawn = self._dialect.generated(chunk)
            found = len(self.ids) if drawn is None else drawn
            if found:
                self.thought, self._counted = found, CountSource.ROUTER


def merged(events: list[GenerationEvent]) -> Iterator[GenerationEvent]:
    """Neighbouring deltas of one kind as one: what arrives together leaves together."""
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
