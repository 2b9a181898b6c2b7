"""An answer that nobody waits to read piece by piece."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from router.domain import Completion, ContentDelta, ServedEvent
from router.errors import BackendError


async def whole_answer(stream: AsyncGenerator[ServedEvent]) -> tuple[str, Completion]:
    """The text of a stream's answer, and its completion. Raises BackendError, also where it has none."""
    text = ""
    async with aclosing(stream) as events:
        async for event in events:
            if isinstance(event, ContentDelta):
                text += event.text
            elif isinstance(event, Completion):
                return text, event
    raise BackendError("backend: the stream ended without a completion")
