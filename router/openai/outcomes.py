"""Outcomes in JSON, named as in the proto file."""

from router.domain import LabelSource, Outcome
from router.errors import InvalidRequest
from router.openai.fields import Fields
from router.requests.outcomes import checked_outcome


def outcome(body: object, tenant: str | None) -> Outcome:
    """A checked outcome of a tenant's decision: `decision_id`, `correct` and `label_source`. Raises InvalidRequest."""
    fields = Fields(body)
    decision, correct, label = fields.text("decision_id"), fields.number("correct"), fields.text("label_source")
    fields.require_none_left()
    return checked_outcome(decision or "", correct, _source(label), tenant)


def _source(word: str | None) -> LabelSource:
    try:
        return LabelSource(word)
    except ValueError:
        words = ", ".join(one.value for one in LabelSource)
        raise InvalidRequest("label_source", f"must be one of {words}") from None
