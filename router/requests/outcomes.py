"""Outcomes, checked."""

from router.domain import LabelSource, Outcome
from router.errors import InvalidRequest
from router.requests.names import checked_name


def checked_outcome(decision_id: str, correct: float | None, source: LabelSource, tenant: str | None) -> Outcome:
    """A checked outcome of a tenant's decision. Raises InvalidRequest."""
    if not checked_name(decision_id, "decision_id"):
        raise InvalidRequest("decision_id", "is required")
    if correct is None:
        raise InvalidRequest("correct", "is required")
    if not 0 <= correct <= 1:
        raise InvalidRequest("correct", "must lie in 0..1")
    return Outcome(decision_id, correct, source, tenant)
