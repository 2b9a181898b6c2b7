"""A served model and everything that belongs to it."""

from dataclasses import dataclass

from router.bundle.manifest import Bundle
from router.domain import Enforcement
from router.ports import Backend
from router.routing.policy import Policy
from router.scoring.scorer import Scorer


@dataclass(frozen=True)
class ServedModel:
    """One served model: its name, the bundle that scores for it, and the rule that chooses."""

    model: str
    bundle: Bundle
    policy: Policy
    scorer: Scorer
    backend: Backend
    enforcement: Enforcement
    fingerprint: str
