"""How an answer is drawn, and its form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_ANSWER_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """JSON as the form of an answer; the thought is free.

    Attributes:
        schema: a JSON schema; None = any object.
        name: what hosted models call the schema.
        strict: whether a hosted model must follow the schema to the letter; None = its default.
    """

    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a backend draws tokens. What is None is not sent: the engine's default, or the model's.

    Attributes:
        temperature: 0 is greedy.
        stop: texts that end the answer and are no part of it; none of them ends a thought.
        response_format: None = text.
        logprobs: the log-probabilities of the answer's tokens are wanted.
        top_logprobs: likeliest tokens that are named at each place.
        passed: fields of the engine's own API, which go to it unchanged.
    """

    temperature: float | None = None
    max_answer_tokens: int = DEFAULT_ANSWER_TOKENS
    seed: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    passed: Mapping[str, Any] = field(default_factory=dict)
