"""How engines say that a generation has ended."""

from typing import Any

from router.domain import FinishReason

_WORDS = {
    FinishReason.NATURAL: (
        "stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "complete", "completed", "end", "word",
        "tool_calls", "tool_call", "tool_use", "function_call",
    ),
    FinishReason.TRUNCATED: (
        "length", "max_tokens", "max_length", "max_new_tokens", "max_output_tokens", "model_length", "limit",
        "model_context_window_exceeded",
    ),
    FinishReason.FILTERED: (
        "content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii",
        "error_toxic", "guardrail_intervened", "image_safety",
    ),
    FinishReason.REFUSED: ("refusal", "refused"),
}  # fmt: skip
_ENDINGS = {word: reason for reason, words in _WORDS.items() for word in words}


def ending(word: Any) -> FinishReason:
    """What an engine's finish reason means. A word that is not known is no whole answer: ABORTED.

    >>> ending("stop"), ending("MAX_TOKENS"), ending("abort")
    (<FinishReason.NATURAL: 'natural'>, <FinishReason.TRUNCATED: 'truncated'>, <FinishReason.ABORTED: 'aborted'>)
    """
    if isinstance(word, dict):  # SGLang's own API says {"type": "stop"}
        word = word.get("type")
    return _ENDINGS.get(word.lower(), FinishReason.ABORTED) if isinstance(word, str) else FinishReason.ABORTED
