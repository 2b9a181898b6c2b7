"""What conversations keep from turn to turn."""

from dataclasses import dataclass
from typing import NamedTuple

from router.domain.ladder import BudgetLadder


class Conversation(NamedTuple):
    """One conversation. What it keeps is a position, so that on another ladder it is another conversation."""

    model: str
    tenant: str
    id: str
    ladder: BudgetLadder


@dataclass(frozen=True, slots=True)
class Pinned:
    """What a conversation keeps.

    Attributes:
        index: position of its rung.
        stops: a rule may end its thoughts before that.
        judged: names the last round of tool calls for which it has gone up, or might have; "" = none.
        cut: its last answer was cut off, or there was none, and it has not gone up for that.
    """

    index: int
    stops: bool = False
    judged: str = ""
    cut: bool = False

    @property
    def length(self) -> tuple[int, bool]:
        """Orders pins by how long they may think."""
        return self.index, not self.stops


class PinnedTurn(NamedTuple):
    """A turn of a conversation: what it was seen to keep before, and what it is to keep from now on.

    Attributes:
        seen: None = it was seen to keep nothing.
        wanted: None = nothing new.
    """

    conversation: Conversation
    seen: Pinned | None
    wanted: Pinned | None
