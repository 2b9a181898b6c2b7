"""How much of an answer is read: what was asked for, and nothing beyond it."""

from dataclasses import dataclass

from router.backends.counting import CHARACTERS_A_TOKEN, READ_A_TOKEN
from router.domain import GenerationRequest

MAX_STREAM_TOKENS = 1 << 18
"""Tokens after which a thought is cut, and a stream that was asked for without a limit, whatever cap a caller names."""

LEAST_HOLD, LONGEST_HOLD = 256, 4096
"""Characters of content that wait for the end marker of a thought that was expected and did not come as such: the
fewest, however small the budget, and the most."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Tokens of a stream that are read, by what was asked of the engine.

    Attributes:
        thought, answer: tokens of each part.
        total: tokens of both.
        hold: characters of content that wait for the end marker of a thought; 0 = none.
        budget: tokens at which a thought is cut; None = nowhere.
    """

    thought: int = MAX_STREAM_TOKENS
    answer: int = MAX_STREAM_TOKENS
    total: int = 2 * MAX_STREAM_TOKENS
    hold: int = 0
    budget: int | None = None

    @classmethod
    def of(cls, request: GenerationRequest, thinks: bool) -> "ReadLimits":
        """The limits of a request. Engines count both parts into one limit, so each part may take all of it.

        Args:
            thinks: the model is known to think, or not known not to.
        """
        budget, answer = request.budget.tokens, request.sampling.max_answer_tokens
        if budget is None:
            return cls(answer=answer, total=MAX_STREAM_TOKENS + answer, hold=LONGEST_HOLD if thinks else 0)
        both = min(budget, MAX_STREAM_TOKENS) + answer
        # A thought within its budget would have taken this long, too, before the first word of an answer.
        held = min(max(CHARACTERS_A_TOKEN * budget, LEAST_HOLD), LONGEST_HOLD)
        return cls(both, both, both, held if budget and thinks else 0, budget)

    def exceeded(self, thought: int, answer: int, spare: int) -> bool:
        """True where a part, or both together, have more than their tokens and some spare ones."""
        return thought > self.thought + spare or answer > self.answer + spare or thought + answer > self.total + spare


PIECES_A_TOKEN, SPARE_PIECES = 2, 512
"""Deltas with text that a token may take, and deltas beside those; a delta is hardly ever less than a token."""


class Gate:
    """Passes text up to the length that `tokens` may have.

    Attributes:
        full: more text, or more pieces of it, have come.
        pieces, characters: how many came.
    """

    def __init__(self, tokens: int) -> None:
        self.full, self.pieces, self.characters = False, 0, 0
        self._most = READ_A_TOKEN * (tokens + 1)
        self._most_pieces = PIECES_A_TOKEN * tokens + SPARE_PIECES

    def through(self, text: str) -> str:
        """The text, cut at the limit."""
        self.pieces += 1
        self.characters += len(text)
        beyond = self.characters - self._most
        self.full = self.full or beyond > 0 or self.pieces > self._most_pieces
        return text[: max(len(text) - beyond, 0)] if beyond > 0 else text
