"""What conversations keep, in this process."""

import time
from collections.abc import Callable, Sequence
from operator import itemgetter

from router.domain import Conversation, Pinned, PinnedTurn
from router.fair_lru import FairLru

CONVERSATIONS, SECONDS = 100_000, 3_600.0
"""Conversations that are kept, and for how long after their last turn."""


class MemoryPins:
    """What each conversation keeps. No tenant drives out the conversations of others, however many it begins.

    Args:
        most: conversations that are kept.
        seconds: time after its last turn at which a conversation is forgotten.
    """

    breaker = None
    """None: nothing here can fail."""

    def __init__(
        self, most: int = CONVERSATIONS, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kept: FairLru[Conversation, tuple[Pinned, float]] = FairLru(most, owner=itemgetter(1))
        self._seconds = seconds
        self._clock = clock

    def __len__(self) -> int:
        return len(self._kept)

    def known(self, conversation: Conversation) -> Pinned | None:
        """What a conversation keeps; None = nothing yet, or it is forgotten."""
        # The age is looked at when it is read: to drop all that have expired at once could take long.
        kept, until = self._kept.get(conversation, (None, 0.0))
        return kept if until >= self._clock() else None

    def keep(self, conversation: Conversation, pinned: Pinned) -> None:
        """Have a conversation keep this from now on, whatever it kept."""
        self._kept[conversation] = pinned, self._clock() + self._seconds

    async def settle(self, turns: Sequence[PinnedTurn]) -> list[Pinned | None]:
        """What each conversation keeps from its turn on, in order."""
        return [self._settled(turn) for turn in turns]

    def _settled(self, turn: PinnedTurn) -> Pinned | None:
        kept = self.known(turn.conversation)
        if kept in (None, turn.seen):
            kept = turn.wanted or kept
        if kept is not None:
            self.keep(turn.conversation, kept)
        return kept
