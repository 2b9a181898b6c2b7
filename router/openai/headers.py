"""Decisions -> headers of a response."""

from collections.abc import Mapping
from urllib.parse import quote

from router.domain import Decision
from router.openai.wishes import PREFIX

PRINTABLE = " !#$&'()*+,/:;=?@[]^`{|}~<>\""
"""Characters of a header that are shown as they are, beside letters, digits and `_.-~`; `%` begins any other."""


def decision_headers(decision: Decision) -> Mapping[str, str]:
    """A decision in headers, by lower-case name. Characters that no header holds are percent-encoded."""
    tokens = decision.rung.tokens
    values = {
        "decision-id": decision.id,
        "rung": _text(decision.rung.name),
        "budget-tokens": None if tokens is None else str(tokens),
        "certified": _flag(decision.choice.certificate is not None),
        "meets-target": _flag(decision.choice.meets_target),
        "rule": decision.rule.value,
        "source": decision.source.value,
        "reason": _text(decision.choice.reason),
        "model": _text(decision.model),
        "model-version": decision.model_version,
    }
    return {PREFIX + name: value for name, value in values.items() if value is not None}


def _text(value: str) -> str:
    return quote(value, safe=PRINTABLE)


def _flag(value: bool) -> str:
    return "true" if value else "false"
