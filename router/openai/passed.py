"""Fields that the router does not know. They go to the engine unchanged, where one takes them."""

from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequest
from router.requests.schemas import MAX_SCHEMA_BYTES, require_bounded

MAX_PASSED = 64
"""Most fields that are passed on."""

ACCOUNT = frozenset(
    ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
)
"""Fields about an account at OpenAI. They change no answer, and no engine gets them."""

HELD = {
    **dict.fromkeys(
        ("thinking_token_budget", "thinking_budget_tokens", "thinking_budget", "reasoning_budget", "custom_params"),
        "the router sets it; bound the thought by budget_router.max_thinking_tokens",
    ),
    **dict.fromkeys(
        (
            "include_reasoning", "separate_reasoning", "stream_reasoning", "reasoning_format", "return_token_ids",
            "timings_per_token", "reasoning_budget_message", "return_tokens_as_token_ids",
        ),
        "the router sets it",
    ),
    **dict.fromkeys(
        ("continue_final_message", "add_generation_prompt", "echo"),
        "a last message of the assistant is continued by itself",
    ),
    **dict.fromkeys(("functions", "function_call"), "is the old form; use tools and tool_choice"),
    **dict.fromkeys(("best_of", "use_beam_search"), "one answer is drawn"),
    **dict.fromkeys(("audio", "prediction", "web_search_options"), "is not supported"),
}  # fmt: skip
"""Fields that would change what the router holds or counts, and what is to be done instead."""


def passed_on(left: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that go to the engine, of those that the router has not read. Raises InvalidRequest."""
    passed = {name: value for name, value in left.items() if name not in ACCOUNT}
    if len(passed) > MAX_PASSED:
        raise InvalidRequest("body", f"at most {MAX_PASSED} fields for the engine, has {len(passed)}")
    size = 0
    for name, value in passed.items():
        if name in HELD:
            raise InvalidRequest(name, HELD[name])
        size += len(name) + require_bounded(value, name)
    if size > MAX_SCHEMA_BYTES:
        raise InvalidRequest("body", f"at most {MAX_SCHEMA_BYTES} bytes of fields for the engine, has {size}")
    return passed
