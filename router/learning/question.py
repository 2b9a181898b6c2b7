"""A question to people who judge answers: a line of a list, or a screen of `budget-router label`.

A question has the prompt and the answers to label, under the names A and B. Their order depends on the answers alone,
so it does not tell which rung gave which.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from math import isfinite
from string import ascii_uppercase
from typing import Any

from router import chat_form
from router.domain import Prompt

FIELDS = {"prompt", "answers", "right"}
MESSAGES = "messages"
"""A field of questions about conversations."""

BOTH, NEITHER = "both", "neither"


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        answers: keys of the answers, or their texts, by name.
        messages: the whole conversation in the form of the OpenAI chat API, where there is more than the prompt.
        right: what the labeller says: a name, "both", "neither", or how right each is by name (0..1).
    """

    prompt: str
    answers: dict[str, str]
    messages: list[Any] | None = None
    right: Any = None

    @classmethod
    def of(cls, prompt: Prompt, answers: Iterable[str]) -> "Question":
        """The question about some answers to a prompt."""
        messages = chat_form.to_json(prompt)
        ordered = sorted(answers, key=lambda one: sha256(f"{messages or prompt.text}\n{one}".encode()).digest())
        named = dict(zip(ascii_uppercase, ordered, strict=False))
        return cls(prompt.text, named, None if messages is None else json.loads(messages))

    @classmethod
    def parsed(cls, line: str) -> "Question":
        """The question in a line of JSON. Raises ValueError."""
        try:
            given = json.loads(line, object_pairs_hook=_unique)
        except json.JSONDecodeError:
            raise ValueError("is not JSON") from None
        if not isinstance(given, dict) or set(given) - {MESSAGES} != FIELDS:
            raise ValueError(f"is not an object of {', '.join(sorted(FIELDS))}")
        answers = given["answers"]
        if not isinstance(given["prompt"], str) or not isinstance(answers, dict) or not answers:
            raise ValueError("has no prompt, or no answers")
        if not all(isinstance(answer, str) for answer in answers.values()):
            raise ValueError("has an answer that is no text")
        return cls(given["prompt"], answers, given.get(MESSAGES), given["right"])

    @property
    def asked(self) -> Prompt:
        """What it is about. Raises ValueError where its messages are no conversation."""
        return Prompt.of(self.prompt) if self.messages is None else chat_form.from_list(self.messages)

    @property
    def said(self) -> list[tuple[str, float]]:
        """Each answer and how right it is, 0..1; empty without a reply. Raises ValueError where it says nothing."""
        names, right = self.answers, self.right
        if right is None:
            return []
        if isinstance(right, dict):
            if set(right) != set(names) or not all(_is_share(one) for one in right.values()):
                raise ValueError(f"right: must have a number in 0..1 for each of {', '.join(names)}")
            return [(answer, float(right[name])) for name, answer in names.items()]
        if isinstance(right, str) and right in (BOTH, NEITHER, *names):
            return [(answer, float(right in (BOTH, name))) for name, answer in names.items()]
        raise ValueError(f"right: {json.dumps(right)[:40]} is none of {', '.join(names)}, {BOTH}, {NEITHER}")

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({k: v for k, v in asdict(self).items() if k != MESSAGES or v}, ensure_ascii=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("has a field twice")
    return dict(pairs)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and 0 <= value <= 1
