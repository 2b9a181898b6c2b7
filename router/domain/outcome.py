"""What the outcome log keeps."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from router.domain.conversation import Prompt
from router.domain.decision import Decision
from router.domain.generation import Checkpoint


class LoggedDecision(NamedTuple):
    """A decision as the outcome log keeps it.

    Attributes:
        prompt: None where the log keeps no texts.
        checkpoints: what a stopping rule has seen, without answers.
    """

    tenant: str
    decision: Decision
    prompt: Prompt | None
    checkpoints: tuple[Checkpoint, ...] = ()


class LabelSource(Enum):
    """Who judged the answer."""

    VERIFIER = "verifier"
    JUDGE = "judge"
    USER = "user"
    AGREEMENT = "agreement"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How correct (0..1) the answer to an earlier decision was. A tenant, if named, must own the decision."""

    decision_id: str
    correct: float
    label_source: LabelSource
    tenant: str | None = None
