"""One question to a model behind an OpenAI-compatible API, as judges are asked."""

from dataclasses import dataclass
from typing import Any

from router.backends.http import EngineClient
from router.errors import BackendError

MOST_TOKENS = 4_096
"""Longest reply, with the model's own thought."""

_THOUGHT_END = "</think>"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model replied, and the tokens that it says this has taken; 0 where it does not."""

    text: str
    tokens: int


async def ask(engine: EngineClient, model: str, question: str) -> Reply:
    """The reply to one message of a user. Raises BackendError."""
    # Hosted models refuse `max_tokens` and a temperature of 0, so neither is sent.
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_completion_tokens": MOST_TOKENS,
    }
    answer = await engine.ask("/v1/chat/completions", body)
    return Reply(_content(answer), _tokens(answer))


def behind_thought(text: str) -> str:
    """A reply without the thought that some engines leave in it."""
    return text.rpartition(_THOUGHT_END)[2].strip()


def _content(answer: dict[str, Any]) -> str:
    try:
        content = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        content = None
    if not isinstance(content, str):
        raise BackendError("judge: its answer has no content")
    return content


def _tokens(answer: dict[str, Any]) -> int:
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return max(0, tokens) if isinstance(tokens, int) else 0
