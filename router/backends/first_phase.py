"""The thought, as the first of two phases has it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from router.backends.borders import WAIT, Borders
from router.backends.thought import Thought, ThoughtReader
from router.backends.token_client import TokenClient
from router.domain import GenerationRequest, ReasoningDelta

MOST_WAITS = 16
"""How often a thought is made to go on before it may end below its floor: each time is a request."""


class ThoughtPhase:
    """Thinks on from the ids of a thought."""

    def __init__(self, client: TokenClient, borders: Borders) -> None:
        self._client = client
        self._borders = borders

    async def think(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[ReasoningDelta]:
        """Think on until the budget is used or the thought ends. Raises BackendError."""
        for phase in (self._up_to_the_floor, self._up_to_the_cap):
            async with aclosing(phase(request, thought)) as deltas:
                async for delta in deltas:
                    yield delta
        thought.used = len(thought.ids)

    async def _up_to_the_floor(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[ReasoningDelta]:
        """A request of its own, since an engine bans an id for a whole request.

        A marker of several tokens cannot be banned: its first one may be an ordinary word, such as "<". A thought that
        ends below the floor goes on behind WAIT.
        """
        floor, borders = request.min_thinking_tokens, self._borders
        banned = borders.end if len(borders.end) == 1 else []
        for wait in range(MOST_WAITS + 1):
            if wait and len(thought.ids) < floor:
                thought.ids += borders.wait[: floor - len(thought.ids)]
                thought.natural = False
                yield ReasoningDelta(WAIT)
            if (left := floor - len(thought.ids)) <= 0 or thought.failed is not None:
                return
            async with aclosing(self._think(request, thought, left, banned)) as deltas:
                async for delta in deltas:
                    yield delta

    async def _up_to_the_cap(self, request: GenerationRequest, thought: Thought) -> AsyncGenerator[ReasoningDelta]:
        cap = request.budget.tokens
        left = self._borders.room(request, thought) if cap is None else cap - len(thought.ids)
        if thought.failed is not None or thought.natural or (left is not None and left <= 0):
            return
        async with aclosing(self._think(request, thought, left)) as deltas:
            async for delta in deltas:
                yield delta

    async def _think(
        self, request: GenerationRequest, thought: Thought, limit: int | None, banned: Sequence[int] = ()
    ) -> AsyncGenerator[ReasoningDelta]:
        """At most `limit` further tokens; their ids, and whether the thought ended, go into `thought`."""
        first, ids = len(thought.ids), [*thought.prompt, *thought.ids]
        client, end = self._client, self._borders.end
        reader = ThoughtReader(thought, limit, end, self._borders.markers.end)
        async with aclosing(client.complete(ids, request.sampling, limit, stop=end, banned=banned)) as arriving:
            async for chunks in arriving:
                if text := reader.read(client.read(chunks)):
                    yield ReasoningDelta(text)
                if reader.over:  # closing the stream stops engines that know no stop ids
                    break
        if text := reader.close():
            yield ReasoningDelta(text)
        if reader.torn is not None:
            thought.ids += await self._borders.before_marker(thought.ids, *reader.torn)
        if reader.text and len(thought.ids) == first:  # the engine sends no ids, and the answer must follow the thought
            thought.ids += (await client.encode("".join(reader.text)))[:limit]
        thought.natural = reader.ended and not banned
