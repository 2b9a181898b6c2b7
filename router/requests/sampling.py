"""How an answer is drawn, and its form, checked. Fields are named as in the proto file."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from router.domain import DEFAULT_ANSWER_TOKENS, ResponseFormat, Sampling
from router.errors import InvalidRequest
from router.requests.schemas import schema

MAX_ANSWER_TOKENS = 32_768
MAX_STOPS, MAX_STOP_BYTES = 8, 128
"""Most stop strings, and most bytes of one: each is looked for in every delta."""

MAX_TOP_LOGPROBS = 20
"""Likeliest tokens that a place may name; engines give no more by default."""

MAX_FORMAT_NAME = 64
FORMATS = ("text", "json_object", "json_schema")


class Range(NamedTuple):
    """Numbers that a field takes; `above`: the least one is none of them."""

    least: float
    most: float
    above: bool = False

    def has(self, value: float) -> bool:
        """Whether a number lies in it; NaN lies nowhere."""
        return self.least <= value <= self.most and not (self.above and value == self.least)

    def __str__(self) -> str:
        least, most = f"{self.least:.15g}", f"{self.most:.15g}"
        return f"above {least} and at most {most}" if self.above else f"in {least}..{most}"


RANGES = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1, above=True),
    "top_k": Range(1, 1_000_000),
    "min_p": Range(0, 1),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "repetition_penalty": Range(0, 2, above=True),
}


def sampling(
    given: Mapping[str, Any], form: ResponseFormat | None, passed: Mapping[str, Any] | None = None
) -> Sampling:
    """How to draw an answer, checked.

    Args:
        given: values by name, each of its type; what is not set is absent.
        form: the form of the answer, checked.
        passed: fields that go to the engine unchanged, checked.

    Raises:
        InvalidRequest: a value is wrong.
    """
    longest = given.get("max_answer_tokens", DEFAULT_ANSWER_TOKENS)
    if not 1 <= longest <= MAX_ANSWER_TOKENS:
        raise InvalidRequest("sampling.max_answer_tokens", f"must lie in 1..{MAX_ANSWER_TOKENS}")
    top, logprobs = given.get("top_logprobs", 0), given.get("logprobs", False)
    if not 0 <= top <= MAX_TOP_LOGPROBS:
        raise InvalidRequest("sampling.top_logprobs", f"must lie in 0..{MAX_TOP_LOGPROBS}")
    if top and not logprobs:
        raise InvalidRequest("sampling.top_logprobs", "needs logprobs")
    return Sampling(
        max_answer_tokens=longest,
        seed=given.get("seed"),
        stop=_stops(given.get("stop", ())),
        response_format=form,
        logprobs=logprobs,
        top_logprobs=top,
        passed=passed or {},
        **{name: _number(given[name], name, numbers) for name, numbers in RANGES.items() if name in given},
    )


def response_format(
    kind: str, asked: str | Mapping[str, Any] | None, name: str, strict: bool | None
) -> ResponseFormat | None:
    """The checked form of an answer; None = text.

    Args:
        kind: "" or one of FORMATS.
        asked: the schema, as JSON or parsed; "" or None = none.
        name: "" = the default.

    Raises:
        InvalidRequest: a value is wrong.
    """
    kind = kind or "text"
    if kind not in FORMATS:
        raise InvalidRequest("response_format.type", f"must be one of {', '.join(FORMATS)}")
    if (kind == "json_schema") != (asked not in ("", None)):
        raise InvalidRequest("response_format.json_schema", "is required for json_schema, and for nothing else")
    if kind == "text":
        return None
    if kind == "json_object" or asked is None:
        return ResponseFormat()
    name = name or "answer"
    if len(name) > MAX_FORMAT_NAME or not (name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()):
        raise InvalidRequest("response_format.name", f"at most {MAX_FORMAT_NAME} letters, digits, dashes, underscores")
    found = schema(asked, "response_format.json_schema")
    if "schema" in found:  # no word of JSON schema: it would be held to mean nothing, so that any answer would do
        raise InvalidRequest("response_format.json_schema", 'must be the schema itself, not hold it as "schema"')
    return ResponseFormat(found, name, strict)


def _number(value: float, name: str, numbers: Range) -> Any:
    if not numbers.has(value):
        raise InvalidRequest(f"sampling.{name}", f"must lie {numbers}")
    return value


def _stops(given: Sequence[str]) -> tuple[str, ...]:
    if len(given) > MAX_STOPS:
        raise InvalidRequest("sampling.stop", f"at most {MAX_STOPS}, has {len(given)}")
    for index, stop in enumerate(given):
        if not 1 <= len(stop.encode()) <= MAX_STOP_BYTES:
            raise InvalidRequest(f"sampling.stop[{index}]", f"must have 1 to {MAX_STOP_BYTES} bytes")
    return tuple(given)
