"""How much of an answer is read: what was asked for, and nothing beyond it."""

from dataclasses import dataclass

from router.domain import GenerationRequest

LONGEST_THOUGHT = 1 << 18
"""Tokens of a thought without a cap after which its stream is cut."""

CHARACTERS_A_TOKEN = 32
"""Characters that a token may have on the average before a text counts as longer than its limit in tokens."""

LONGEST_HOLD = 4096
"""Characters of content that wait for the end marker of a thought that was expected and did not come as such."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens that thought and answer may have, by what was asked of the engine.

    Attributes:
        hold: characters of content that wait for the end marker of a thought; 0 = none.
        budget: tokens at which a thought is cut; None = nowhere.
    """

    thought: int = LONGEST_THOUGHT
    answer: int = LONGEST_THOUGHT
    hold: int = 0
    budget: int | None = None

    @classmethod
    def of(cls, request: GenerationRequest, thinks: bool) -> "Limits":
        """The limits of a request. Engines count both parts into one limit, so each part may take all of it.

        Args:
            thinks: the model is known to think, or not known not to.
        """
        budget, answer = request.budget.tokens, request.sampling.max_answer_tokens
        if budget is None:
            return cls(answer=answer, hold=LONGEST_HOLD if thinks else 0)
        # A thought within its budget would have taken this long, too, before the first word of an answer.
        hold = min(max(8 * budget, 256), LONGEST_HOLD) if budget and thinks else 0
        return cls(budget + answer, budget + answer, hold, budget)


SPARE_PIECES = 512
"""Deltas with text beside two for each token that an answer may have; a delta is hardly ever less than a token."""


class Gate:
    """Lets through so much text as `tokens` can be.

    Attributes:
        full: there was more.
        pieces, characters: how many came.
    """

    def __init__(self, tokens: int) -> None:
        self.full, self.pieces, self.characters = False, 0, 0
        self._most = CHARACTERS_A_TOKEN * (tokens + 1)

    def through(self, text: str) -> str:
        """The text, cut at the limit."""
        self.pieces += 1
        self.characters += len(text)
        beyond = self.characters - self._most
        if beyond <= 0:
            return text
        self.full = True
        return text[: max(len(text) - beyond, 0)]
