"""What a caller asks of the router itself: `budget_router` in the body, or headers `x-budget-router-*`.

Names are those of the proto file, in headers with dashes. The body counts where both name an option.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from router.domain import OnUnmet, ReasoningEffort
from router.errors import InvalidRequest
from router.openai.fields import Fields, present

PREFIX = "x-budget-router-"
TIMEOUT = "x-request-timeout"
"""The header of the seconds that the caller waits for the whole answer."""

NUMBERS = ("max_loss", "min_quality", "max_latency")
TOKENS = ("min_thinking_tokens", "max_thinking_tokens")
WORDS: Mapping[str, type[Enum]] = {"on_unmet": OnUnmet, "reasoning_effort": ReasoningEffort}
TEXTS = ("rung", "conversation_id", "tenant", *WORDS)
FLAGS = ("per_prompt_target", "escalate", "include_decision")
NAMES = (*NUMBERS, *TOKENS, *TEXTS, *FLAGS)
HEADERS = {PREFIX + name.replace("_", "-"): name for name in NAMES}
LONGEST_TIMEOUT = 86_400.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller asks of the router.

    Attributes:
        options: by name, as `router.requests.options` checks them.
        tenant: "" = that of the credentials.
        include_decision: the decision is wanted in the body as well.
    """

    options: Mapping[str, Any]
    tenant: str
    include_decision: bool


def wishes(body: Fields, headers: Mapping[str, str]) -> Wishes:
    """The wishes of a request, whose `reasoning_effort` is one of them. Raises InvalidRequest.

    Args:
        headers: by lower-case name.
    """
    effort = body.text("reasoning_effort")
    within = body.within("budget_router")
    asked = {} if within is None else _of_body(within)
    given = _of_headers(headers) | present(reasoning_effort=effort) | asked
    if "max_loss" in given and "min_quality" in given:
        raise InvalidRequest("options.min_quality", "max_loss and min_quality exclude each other")
    given |= {name: _member(words, given[name], name) for name, words in WORDS.items() if name in given}
    tenant, decision = given.pop("tenant", ""), given.pop("include_decision", False)
    return Wishes(given, tenant, decision)


def seconds_left(headers: Mapping[str, str]) -> float | None:
    """The seconds that the caller waits; None = for ever. Raises InvalidRequest."""
    if (given := headers.get(TIMEOUT)) is None:
        return None
    seconds = _number(given, TIMEOUT)
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise InvalidRequest(TIMEOUT, f"must lie above 0 and at most {LONGEST_TIMEOUT:g} seconds")
    return seconds


def _of_body(given: Fields) -> dict[str, Any]:
    read = {
        **{name: given.number(name) for name in NUMBERS},
        **{name: given.integer(name) for name in TOKENS},
        **{name: given.text(name) for name in TEXTS},
        **{name: given.flag(name) for name in FLAGS},
    }
    given.require_none_left()
    return present(**read)


def _of_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """The wishes in headers; a name that is not known is refused, since a misspelt one would have no effect."""
    found: dict[str, Any] = {}
    for header, value in headers.items():
        if header.startswith(PREFIX):
            if (name := HEADERS.get(header)) is None:
                raise InvalidRequest(header, f"is no known header; known: {', '.join(HEADERS)}")
            found[name] = _value(name, value, header)
    return found


def _value(name: str, value: str, header: str) -> Any:
    if name in NUMBERS:
        return _number(value, header)
    if name in TOKENS:
        if not (value.isascii() and value.isdigit()) or len(value) > 9:
            raise InvalidRequest(header, "must be a whole number of tokens")
        return int(value)
    if name in FLAGS:
        if value.lower() not in ("true", "false"):
            raise InvalidRequest(header, "must be true or false")
        return value.lower() == "true"
    return value


def _number(value: str, header: str) -> float:
    with suppress(ValueError):
        if value.isascii() and "_" not in value:  # Python takes 1_000 and digits of any script for numbers
            return float(value)  # "nan" is a float, too, and lies in no range
    raise InvalidRequest(header, "must be a number")


def _member(words: type[Enum], word: str, name: str) -> Enum:
    try:
        return words(word)
    except ValueError:
        known = ", ".join(one.value for one in words)
        raise InvalidRequest(f"options.{name}", f"must be one of {known}") from None
