"""An engine that completes token ids, asked about one model."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from router.backends import families
from router.backends.completions import Piece, TokenCompletionAPI
from router.backends.engine_fields import Body
from router.backends.failures import MappedErrors
from router.backends.http import Chunk, EngineClient
from router.backends.markers import Markers
from router.domain import Prompt, Sampling

SEEDS = 1 << 31
"""Seeds that every engine takes lie below."""


class TokenClient:
    """Asks an engine in the words of its API. All methods raise BackendError.

    Attributes:
        api: the row of the table for its kind.
    """

    def __init__(self, engine: EngineClient, model: str, api: TokenCompletionAPI) -> None:
        self.api = api
        self._engine = engine
        self._model = model

    async def encode(self, text: str) -> list[int]:
        """A text as token ids."""
        with MappedErrors():
            return await self.api.encode(self._engine, self._model, text)

    async def decode(self, ids: list[int]) -> str:
        """Token ids as text."""
        with MappedErrors():
            return await self.api.decode(self._engine, self._model, ids)

    async def render(self, prompt: Prompt, thinking: bool) -> list[int]:
        """A prompt as token ids, up to where the model continues."""
        with MappedErrors():
            return await self.api.render(self._engine, self._model, prompt, thinking)

    async def window(self) -> int | None:
        """Tokens that prompt and completion may have together; None where the engine does not say."""
        with MappedErrors():
            return await self.api.window(self._engine, self._model)

    async def markers(self, given: Markers) -> Markers:
        """The markers as given, or of the model's family."""
        return await families.find(self._engine, self._model, self.api, given)

    def complete(
        self,
        ids: list[int],
        sampling: Sampling,
        limit: int | None,
        *,
        stop: Sequence[int] = (),
        banned: Sequence[int] = (),
        extra: Body | None = None,
    ) -> AsyncGenerator[list[Chunk]]:
        """The chunks of a completion of `ids`, at most `limit` tokens long.

        Args:
            stop: ids of the end marker.
            banned: ids that are not drawn.
            extra: further fields of the request.
        """
        body = self.api.body(self._model, ids, limit, _sampling_at(sampling, ids), list(stop), list(banned))
        return self._engine.chunks(self.api.path, body | (extra or {}), limit)

    def read(self, chunks: list[Chunk]) -> list[Piece]:
        """The pieces of a completion."""
        with MappedErrors():
            return [self.api.piece(chunk) for chunk in chunks]


def _sampling_at(sampling: Sampling, ids: list[int]) -> Sampling:
    """The sampling of one request of a generation: with its seed, each would draw the same random numbers again."""
    return sampling if sampling.seed is None else replace(sampling, seed=(sampling.seed + len(ids)) % SEEDS)
