"""A moment in which the engine answers nobody: learning waits for one before each cut, but not for long.

An engine that is never idle has so many requests in its batch that one more is hardly felt.
"""

import asyncio
from collections.abc import Callable

LOOK_SECONDS, LOOKS = 0.02, 100
"""How often and how many times it is looked for: two seconds."""


class QuietMoment:
    """Waits for a moment without load.

    Args:
        load: tokens of callers that are under way or wait.
    """

    def __init__(self, load: Callable[[], float]) -> None:
        self._load = load

    async def __call__(self) -> None:
        """Return in a quiet moment, or after two seconds."""
        for _ in range(LOOKS):
            if not self._load():
                return
            await asyncio.sleep(LOOK_SECONDS)
