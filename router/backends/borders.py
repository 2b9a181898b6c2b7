"""What stands around a thought, as token ids: the prompt before it, and what closes it and leads to the answer."""

from router.backends.counting import estimate
from router.backends.markers import Markers
from router.backends.thought import Thought
from router.backends.token_client import TokenClient
from router.backends.token_ids import find_ids
from router.domain import GenerationRequest
from router.errors import BackendError, InvalidRequest

CONTEXT = 4
"""Token ids before a piece with which it is decoded: tokenizers drop a space at the start of a text."""

WAIT = "Wait"
"""Makes a thought that has ended below its floor go on (s1)."""

GAP = "\n\n"
"""Stands between a thought and the beginning of an answer."""


class Borders:
    """The ids of a model's markers and cue, and its window, which the engine is asked for once.

    Args:
        markers: a text that is "" there is the one of the model's family.

    Attributes:
        markers: those of the model, once they are known.
        start, end: ids of the markers.
        wait: ids of WAIT, where the end marker is several tokens.
    """

    def __init__(self, client: TokenClient, markers: Markers) -> None:
        self.markers = markers
        self.start: list[int] = []
        self.end: list[int] = []
        self.wait: list[int] = []
        self._client = client
        self._closing: list[int] = []
        self._cue: list[int] = []
        self._window: int | None = None

    async def known_markers(self) -> Markers:
        """The markers as given, or of the model's family. Raises BackendError where the engine does not answer."""
        self.markers = await self._client.markers(self.markers)
        return self.markers

    async def learn(self) -> None:
        """Ask the engine for what is not known yet. Raises BackendError."""
        if self.end:
            return
        encode, markers = self._client.encode, await self.known_markers()
        start, end = await encode(markers.start), await encode(markers.end)
        if not end:
            raise BackendError(f"backend: its tokenizer makes no token of the end marker {markers.end!r}; is it right?")
        self._closing = [*end, *(await encode(markers.answer) if markers.answer else [])]
        if len(end) > 1:
            self.wait = await encode(WAIT)
        if markers.cue:
            self._cue = await encode(f"\n{markers.cue}\n")
        self._window = await self._client.window()
        self.start, self.end = start, end

    async def opening(self, request: GenerationRequest) -> list[int]:
        """The prompt's token ids up to the thought; behind an empty thought where the budget is 0.

        A thought that the caller gives is part of it, up to its end marker. Raises BackendError.
        """
        await self.learn()
        thinking = await self._client.render(request.prompt.before, thinking=True)
        if (begun := request.prompt.begun) is not None and begun.reasoning:
            return [*self._opened(thinking), *(await self._client.encode(begun.reasoning))]
        if request.budget.tokens == 0:
            bare = await self._client.render(request.prompt.before, thinking=False)
            # vLLM begins to hold a form behind an end marker alone, so that a template without one will not do.
            marked = request.sampling.response_format is None or find_ids(bare, self.end) is not None
            if bare != thinking and marked:  # else an empty thought must stand in for what the template does not write
                return bare
            return [*self._opened(thinking), *self._closing]
        return self._opened(thinking)

    async def before_answer(self, request: GenerationRequest, thought: Thought) -> list[int]:
        """The ids between a thought and what the model answers: cue, end marker, and the beginning that a caller gives.

        A budget of 0 has its end marker in the prompt. Raises BackendError.
        """
        closed = request.budget.tokens == 0 and not thought.given
        closing = [] if closed else [*([] if thought.natural else self._cue), *self._closing]
        begun = request.prompt.begun
        if begun is None or not begun.content:
            return closing
        # Models put an empty line between a thought and an answer, unless a marker opens the answer.
        gap = "" if closed or self.markers.answer else GAP
        return [*closing, *(await self._client.encode(gap + begun.content))]

    def unmarked(self, ids: list[int]) -> list[int]:
        """The ids up to the first end marker."""
        return ids[: find_ids(ids, self.end)]

    async def before_marker(self, ids: list[int], torn: list[int], text: str) -> list[int]:
        """The ids of a torn piece behind `ids` that come before the marker: as many as its text before it has.

        Where the engine decodes nothing, none of them are kept: the thought is cut a little earlier.
        """
        decode = self._client.decode
        try:
            context = ids[-CONTEXT:]
            start = len(await decode(context)) if context else 0
            kept, beyond = 0, len(torn)
            while beyond - kept > 1:
                middle = (kept + beyond) // 2
                length = len(await decode([*context, *torn[:middle]])) - start
                kept, beyond = (middle, beyond) if length <= len(text) else (kept, middle)
        except BackendError:
            return []
        return torn[:kept]

    def room(self, request: GenerationRequest, thought: Thought) -> int | None:
        """Tokens that a thought without a cap may take and still leave room for the answer; None = unknown window."""
        if self._window is None:
            return None
        closing = len(self._cue) + len(self._closing) + _begun_tokens(request)
        return self._window - len(thought.prompt) - len(thought.ids) - request.sampling.max_answer_tokens - closing

    def has_room(self, request: GenerationRequest, thought: Thought) -> bool:
        """True where an answer fits behind a thought."""
        room = self.room(request, thought)
        return room is None or room >= 0

    def check(self, request: GenerationRequest, thought: Thought | None = None) -> None:
        """Raises InvalidRequest, which names the part at fault, where what is asked for cannot fit the model's window.

        Args:
            thought: has the prompt's ids; None = they are not known yet, and only budget and answer count.
        """
        prompt = 0 if thought is None else len(thought.prompt) + _begun_tokens(request)
        budget = request.budget.tokens or 0
        wanted = prompt + budget + request.sampling.max_answer_tokens
        if self._window is None or wanted < self._window:
            return
        field = "options.max_thinking_tokens" if budget >= self._window else "sampling.max_answer_tokens"
        problem = f"prompt, budget and answer, {wanted} tokens, exceed the model's window of {self._window}"
        raise InvalidRequest("messages" if prompt else field, problem)

    def _opened(self, ids: list[int]) -> list[int]:
        """The ids, followed by the start marker unless the template has already put it there."""
        tail = ids[-len(self.start) - 2 :]  # a line break may stand behind the marker
        if any(tail[i : i + len(self.start)] == self.start for i in range(len(tail))):
            return ids
        return [*ids, *self.start]


def _begun_tokens(request: GenerationRequest) -> int:
    """About how many tokens the beginning of an answer has; 0 where there is none."""
    begun = request.prompt.begun
    return 0 if begun is None else estimate(begun.content)
