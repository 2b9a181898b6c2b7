"""A served model and everything that belongs to it."""

from dataclasses import dataclass
from functools import cached_property

from router.bundle.manifest import Bundle
from router.domain import Enforcement
from router.ports import Backend, Climber
from router.routing.policy import Policy
from router.scoring.scorer import Scorer
from router.stopping.rules import Lookahead


@dataclass(frozen=True)
class ServedModel:
    """One served model: its name, the bundle that scores for it, and the rule that chooses.

    Attributes:
        fingerprint: the engine that runs. A bundle that is about another one decides nothing.
        lookahead: what a learned rule that stops within the thought asks; None where the bundle has none.
        ahead: think on while a stopping rule has an answer probed.
    """

    model: str
    bundle: Bundle
    policy: Policy
    scorer: Scorer
    backend: Backend
    enforcement: Enforcement
    fingerprint: str
    lookahead: Lookahead | None = None
    ahead: bool = False

    @cached_property
    def foreign(self) -> str:
        """Why the bundle decides nothing here: it is about another engine; "" where it is about the one that runs."""
        return self.bundle.manifest.foreign_to(self.fingerprint)

    @cached_property
    def foreign_in_short(self) -> str:
        """The same in a few words, for every reply."""
        return self.bundle.manifest.foreign_in_short(self.fingerprint)

    @cached_property
    def climber(self) -> Climber | None:
        """The backend, where it is one that has thoughts step by step; to look at its methods takes 30 microseconds."""
        return self.backend if isinstance(self.backend, Climber) else None

    @property
    def climbs(self) -> bool:
        """Thoughts can be had step by step."""
        return self.climber is not None and self.climber.climbs

    @property
    def suspended(self) -> str:
        """Why no certificate counts; "" while they do."""
        return self.foreign or self.policy.suspended
