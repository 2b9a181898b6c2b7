"""Conversations and the rungs that they keep."""

import time
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from operator import itemgetter

from router.fair_lru import FairLru

Conversation = tuple[str, str, str]
"""Model, tenant and conversation id."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """What a conversation keeps: the position of its rung, and whether a rule may end its thoughts before that."""

    index: int
    stops: bool = False


CONVERSATIONS, SECONDS = 100_000, 3_600.0
"""Conversations that keep their rung, and for how long after their last turn."""


class Pins(MutableMapping[Conversation, Pinned]):
    """What each conversation keeps. No tenant drives out the conversations of others, however many it begins.

    Args:
        most: conversations that are kept.
        seconds: time after its last turn at which a conversation is forgotten.
    """

    def __init__(
        self, most: int = CONVERSATIONS, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kept: FairLru[Conversation, tuple[Pinned, float]] = FairLru(most, owner=itemgetter(1))
        self._seconds = seconds
        self._clock = clock

    def __getitem__(self, conversation: Conversation) -> Pinned:
        pinned, until = self._kept[conversation]
        # Looked at when it is read: to drop all that have expired at once could take long.
        if until < self._clock():
            raise KeyError(conversation)
        self[conversation] = pinned
        return pinned

    def __setitem__(self, conversation: Conversation, pinned: Pinned) -> None:
        self._kept[conversation] = pinned, self._clock() + self._seconds

    def __delitem__(self, conversation: Conversation) -> None:
        del self._kept[conversation]

    def __iter__(self) -> Iterator[Conversation]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)
