"""The chat API with the engine's own enforcement of the budget, watched.

Thinking tokens are counted while they stream, as the engine reports them or by token ids, never by deltas: one delta
may hold several tokens. Past the budget and a little slack the request is cancelled, and a second phase answers. It
answers, too, where an engine ends its text within the thought.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from router.backends.answer_text import AnswerText
from router.backends.counting import MARGIN, estimate
from router.backends.dialects import Dialect
from router.backends.http import EngineClient
from router.backends.limits import ReadLimits
from router.backends.listing import check_serves
from router.backends.markers import Markers
from router.backends.messages import CONTINUES, messages, tools
from router.backends.request_fields import IMAGES, path_of, require_possible, untaken
from router.backends.stream_state import StreamState
from router.backends.thought import ENDED, Thought
from router.backends.two_phase import TwoPhase
from router.domain import FinishReason, GenerationEvent, GenerationRequest
from router.errors import BackendError, BackendRefused, BackendTimeout, InvalidRequest

PLAIN_ANSWERS = 3
"""Answers without a thought, one after another, from which on a model is taken for one that does not think.

Its answers need not wait any more for the end marker of a thought that does not come."""

VARIABLES = "chat_template_kwargs"
"""Variables of the chat template: the router sets those that turn thoughts on and off."""


def request_body(model: str, dialect: Dialect, request: GenerationRequest, cue: str | None = None) -> dict[str, Any]:
    """The chat request. `max_tokens` always leaves room for the answer behind the budget, and for a closing cue."""
    body: dict[str, Any] = {
        "model": model,
        "messages": messages(request.prompt, dialect.spoken),
        "stream": True,
        **dialect.sampling(request),
        **dialect.budget(request.budget),
        **dialect.streaming,
        **tools(request.tools, dialect.spoken),
        **(CONTINUES if request.prompt.begun is not None else {}),
    }
    if request.sampling.response_format is not None:
        body |= dialect.form(request.sampling.response_format)
    if request.sampling.logprobs:
        body |= {"logprobs": True, "top_logprobs": max(1, request.sampling.top_logprobs)}  # llama.cpp: 0 = none at all
    if closing := dialect.closing(request.budget, cue):
        body |= closing
        body["max_tokens"] += MARGIN * sum(map(estimate, closing.values()))
    return body | _passed(request.sampling.passed, body)


def _passed(passed: Mapping[str, Any], body: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """The caller's own fields beside those of a body, also within the variables of the chat template.

    Raises:
        InvalidRequest: a field of the body would be replaced.
    """
    merged: dict[str, Any] = {}
    for name, value in passed.items():
        ours = body.get(name)
        if name in body and not (name == VARIABLES and isinstance(value, Mapping)):
            raise InvalidRequest(f"{at}{name}", "the router sets it")
        merged[name] = {**ours, **_passed(value, ours, f"{name}.")} if isinstance(ours, Mapping) else value
    return merged


class Chat:
    """Streams from `/v1/chat/completions`.

    Args:
        fallback: holds floors, goes on with answers that callers have begun, and finishes answers whose thought went
            past its budget. It is not used where a request has a field that it does not take, such as tools.
        images: the model takes images.
        markers: finds the markers of the model; None = the usual ones.
        cue: as in Markers.
    """

    def __init__(
        self,
        engine: EngineClient,
        model: str,
        dialect: Dialect,
        fallback: TwoPhase | None,
        images: bool = False,
        markers: Callable[[], Awaitable[Markers]] | None = None,
        cue: str | None = None,
    ) -> None:
        self._engine = engine
        self._model = model
        self._dialect = dialect
        self._fallback = fallback
        self._taken = dialect.taken if images else dialect.taken - {IMAGES}
        self._find_markers = markers
        self._cue = cue
        self._plain = 0

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
        require_possible(request)
        fallback = await self._fallback_for(request)
        field = untaken(request, self._taken)
        if fallback is None and field is not None:
            raise InvalidRequest(field, "neither the engine nor two phases can do this here")
        # Some engines take an answer that goes on for a thought, as no end marker comes before it.
        if fallback is not None and (field is not None or request.prompt.begun is not None):
            async with aclosing(fallback.stream(request)) as events:
                async for event in events:
                    yield event
            return
        limits = ReadLimits.of(request, self._dialect.completions is not None and self._plain < PLAIN_ANSWERS)
        state, over = StreamState(self._dialect, await self._markers(), limits, AnswerText.of(request)), False
        body = request_body(self._model, self._dialect, request, self._cue)
        try:
            async with aclosing(self._engine.chunks("/v1/chat/completions", body, body.get("max_tokens"))) as arriving:
                async for chunks in arriving:
                    deltas, over = state.read(chunks, request.budget.tokens if fallback is not None else None)
                    for delta in deltas:
                        yield delta
                    if state.enough:
                        break
        except BackendTimeout:
            if not state.ended:  # else the answer is whole, and only the end of the stream is missing
                raise
        except BackendRefused as error:
            if (field := path_of(error.field, request)) is None:
                raise
            raise InvalidRequest(field, "the served model refuses it") from error
        # Leaving the block above cancelled the request.
        for event in state.rest():
            yield event
        if request.budget.tokens != 0:
            self._plain = self._plain + 1 if state.plain else 0
        async with aclosing(_ended(state, over, request, fallback)) as events:
            async for event in events:
                yield event

    async def _markers(self) -> Markers:
        """The markers of the model; the usual ones while the engine does not say: here they matter only in content."""
        with suppress(BackendError):
            if self._find_markers is not None:
                return await self._find_markers()
        return Markers(cue=self._cue)

    async def _fallback_for(self, request: GenerationRequest) -> TwoPhase | None:
        """Two-phase enforcement, if it can carry the request. Raises InvalidRequest where its window is too small."""
        if self._fallback is None or untaken(request, self._fallback.taken) is not None:
            return None
        if not await self._fallback.ready():
            return None
        self._fallback.borders.check(request)
        return self._fallback


async def _ended(
    state: StreamState, over: bool, request: GenerationRequest, fallback: TwoPhase | None
) -> AsyncGenerator[GenerationEvent]:
    """The completion; before it the answer behind a thought that the stream left unfinished, cut at its budget."""
    thought = None if fallback is None else await _unfinished(state, over, request, fallback)
    if fallback is None or thought is None:
        yield state.completion(request)
        return
    async with aclosing(fallback.answer(request, thought)) as events:
        async for event in events:
            yield event


async def _unfinished(state: StreamState, over: bool, request: GenerationRequest, fallback: TwoPhase) -> Thought | None:
    """The thought so far, where an answer must still be had behind it: cut at its budget, or ended with the text."""
    if not over and not (state.unanswered_thought and state.finish in ENDED):
        return None
    if not over and state.finish is FinishReason.TRUNCATED and request.budget.tokens is None:
        return None  # there is no place left to cut it at
    count, borders = state.count, fallback.borders
    ids = borders.unmarked(state.counts.ids) or await fallback.client.encode(state.text)  # not every engine streams ids
    natural = not over and state.finish is FinishReason.NATURAL
    used = count.tokens or len(ids)
    thought = Thought(await borders.opening(request), ids[: request.budget.tokens], used, natural, count=count)
    return thought if over or borders.has_room(request, thought) else None
