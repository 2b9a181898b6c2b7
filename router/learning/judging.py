"""Who judges answers that differ from the one that was served: a verifier, another model, or nobody."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from router.domain import Prompt
from router.ports import Verifier


@dataclass(frozen=True, slots=True)
class Verdict:
    """How right answers are, 0..1.

    Attributes:
        served: of the answer that was served.
        others: of the others, in order; None = no verdict.
        tokens: what it has cost.
    """

    served: float
    others: tuple[float | None, ...]
    tokens: int = 0


class Judge(Protocol):
    """Compares answers with the one that was served."""

    @property
    def name(self) -> str:
        """As evidence names it: "verifier" or "judge"."""
        ...

    async def compare(self, prompt: Prompt, served: str, others: Sequence[str]) -> Verdict:
        """The verdict on other answers to a prompt. Raises DependencyError."""
        ...


class ByVerifier:
    """Judges by the operator's verifier."""

    name = "verifier"

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def compare(self, prompt: Prompt, served: str, others: Sequence[str]) -> Verdict:
        """The verifier's verdict on all of them. Raises VerifierError."""
        best, *rest = await self._verifier.correct(prompt, [served, *others])
        return Verdict(best, tuple(rest))
