"""Thinking tokens: what the engine says, beside what the router sees.

An engine's count is used unless the thought that arrived contradicts it. The bounds are wide on purpose: no
tokenizer makes fewer than one token of CHARACTERS_A_TOKEN characters over a longer text, and only less than that is
called a contradiction. Then token ids count, or an estimate of BYTES_A_TOKEN bytes a token.
"""

from dataclasses import dataclass

from router.backends.text import BLANK
from router.domain import SLACK, CountSource

BYTES_A_TOKEN = 4
"""Bytes of UTF-8 that an average token stands for."""

CHARACTERS_A_TOKEN, GRACE = 8, 64
"""Characters a token that a text has at most on the average, repetitions and some further ones left out."""

READ_A_TOKEN = 32
"""Characters a token that are read of a text of whatever kind: a token may be dozens of repeated signs, but not every
token of a text is."""

MARGIN = 2
"""Factor by which tokens counted by their text may be wrong, before anything is cut for it."""

RUNS = ("  ", "--", "==", "\t\t")
"""Repetitions of which tokenizers put dozens into one token."""


def estimate(text: str) -> int:
    """About how many tokens a text is."""
    return -(-len(text.encode(errors="replace")) // BYTES_A_TOKEN)


@dataclass(slots=True)
class Tally:
    """The text of a thought, measured.

    Attributes:
        characters: its length, repetitions left out.
        size: bytes of UTF-8.
        visible: some of it shows.
    """

    characters: int = 0
    size: int = 0
    visible: bool = False

    def add(self, text: str) -> None:
        """Count a piece of the thought."""
        self.size += len(text) if text.isascii() else len(text.encode())
        self.characters += len(text)
        if len(text) > GRACE:
            self.characters -= sum(2 * text.count(run) for run in RUNS)
        if not self.visible and text.strip(BLANK):
            self.visible = True

    @property
    def least(self) -> int:
        """Tokens that it has at least."""
        tokens = (self.characters - GRACE) // CHARACTERS_A_TOKEN
        return tokens if tokens > 0 else int(self.visible)

    @property
    def estimate(self) -> int:
        """Tokens that it has on the average."""
        return max(self.least, -(-self.size // BYTES_A_TOKEN))

    def contradicts(self, tokens: int) -> bool:
        """No tokenizer makes so few tokens of it."""
        return (tokens == 0 and self.visible) or tokens + SLACK < self.least


@dataclass(frozen=True, slots=True)
class Count:
    """Thinking tokens as the router reports them.

    Attributes:
        tokens: None where nobody counted them.
        reported: the engine's own number, also where it is not used.
        disagrees: the engine's numbers contradict what arrived.
        least: how many there are for certain, or by the engine's word.
    """

    tokens: int | None
    source: CountSource
    reported: int | None = None
    disagrees: bool = False
    least: int = 0

    @property
    def guessed(self) -> bool:
        """It is an estimate."""
        return self.source is CountSource.ESTIMATE

    def beyond(self, budget: int | None) -> bool:
        """More was thought than the budget allows. An estimate alone proves nothing: it may be too high."""
        return budget is not None and self.least > budget


def settle(tally: Tally, reported: int | None, counted: int | None, drawn: int, total: int | None) -> Count:
    """The count to report.

    Args:
        reported: the engine's count; None where it has none.
        counted: tokens drawn while it thought, by token ids or by the engine's count of all tokens; None = unknown.
        drawn: thinking tokens that are certain by their ids.
        total: the engine's count of thought and answer.
    """
    if reported is not None and not tally.contradicts(reported) and reported >= drawn:
        return Count(reported, CountSource.ENGINE, reported, least=reported)
    denied = counted is not None and tally.contradicts(counted)
    disagrees, said = reported is not None or denied, reported or 0
    if counted is not None and not denied:
        return Count(counted, CountSource.ROUTER, reported, disagrees, max(counted, said))
    if not tally.visible:
        return Count(None, CountSource.NONE, reported, disagrees, said)
    tokens = tally.estimate if total is None or total < tally.least else min(tally.estimate, total)
    return Count(tokens, CountSource.ESTIMATE, reported, disagrees, max(tokens if disagrees else tally.least, said))
