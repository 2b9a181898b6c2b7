"""Errors -> error objects of the OpenAI API, in one table. Clients never see an unknown error's text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog

from router import errors

RETRY_SECONDS = 1.0
INVALID, LIMITED, FAILED = "invalid_request_error", "rate_limit_error", "server_error"


class Kind(NamedTuple):
    """How a class of errors is answered: HTTP status, type in the error object, and whether a client may try again."""

    status: int
    type: str
    retry: bool = False


KINDS: Sequence[tuple[type[Exception], Kind]] = (
    (errors.InvalidRequest, Kind(400, INVALID)),
    (errors.NotFound, Kind(404, INVALID)),
    (errors.TargetUnmet, Kind(422, INVALID)),
    (errors.Overloaded, Kind(429, LIMITED, True)),
    (errors.Draining, Kind(503, FAILED, True)),
    (errors.Unauthenticated, Kind(401, "authentication_error")),
    (errors.PermissionDenied, Kind(403, "permission_error")),
    (errors.BackendBusy, Kind(429, LIMITED, True)),
    (errors.BackendRefused, Kind(422, INVALID)),
    (errors.BackendTimeout, Kind(504, FAILED, True)),
    (errors.BackendUnavailable, Kind(503, FAILED, True)),
    (errors.BackendMisconfigured, Kind(502, FAILED)),
    (errors.BackendError, Kind(502, FAILED, True)),
    (errors.OutcomeLogHangs, Kind(503, FAILED)),
    (errors.DependencyError, Kind(503, FAILED, True)),
    (TimeoutError, Kind(504, "timeout_error")),
    (errors.RouterError, Kind(500, FAILED)),
)
"""The answer by class of error; the first class that matches counts."""

UNKNOWN = Kind(500, FAILED)

CODES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    405: "UNIMPLEMENTED", 413: "INVALID_ARGUMENT", 415: "INVALID_ARGUMENT", 422: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "UNKNOWN", 502: "UNAVAILABLE", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip
"""gRPC's name of an HTTP status: metrics have one set of names."""

PARAMS = (
    (re.compile(r"^options\.reasoning_effort$"), "reasoning_effort"),
    (re.compile(r"^options\."), "budget_router."),
    (re.compile(r"^tenant$"), "budget_router.tenant"),
    (re.compile(r"^sampling\.max_answer_tokens$"), "max_completion_tokens"),
    (re.compile(r"^sampling\."), ""),
    (re.compile(r"^response_format\.(name|strict)$"), r"response_format.json_schema.\1"),
    (re.compile(r"^response_format\.json_schema$"), "response_format.json_schema.schema"),
    (re.compile(r"^tools\[(\d+)\]\.(name|description|parameters|strict)$"), r"tools[\1].function.\2"),
    (re.compile(r"^messages\[(\d+)\]\.(?:image_urls|parts)"), r"messages[\1].content"),
)
"""Fields of the proto file, and the names of the same in the OpenAI API."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a request is answered that fails.

    Attributes:
        error: the error object.
        headers: beside those of every response.
    """

    status: int
    error: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The status as gRPC calls it."""
        return CODES[self.status]

    @property
    def body(self) -> Mapping[str, Any]:
        """The body of the response, and of the last event of a stream."""
        return {"error": self.error}


def refusal(error: Exception) -> Refusal:
    """The answer to an error; an unknown one is logged, and its text is withheld."""
    kind = next((kind for of, kind in KINDS if isinstance(error, of)), UNKNOWN)
    if isinstance(error, TimeoutError):
        return refused(kind, "the time that the request names is over", "deadline_exceeded")
    if not isinstance(error, errors.RouterError):
        structlog.get_logger().error("unexpected", exc_info=error)
        return refused(kind, "unexpected error, logged on the server", "unexpected")
    if not isinstance(error, errors.FieldError):
        after = error.retry_after if isinstance(error, errors.Overloaded | errors.BackendBusy) else RETRY_SECONDS
        return refused(kind, str(error), _word(error), retry_after=after)
    name = param(error.field)
    code = "model_not_found" if (kind.status, name) == (404, "model") else _word(error)
    return refused(kind, f"{name}: {error.problem}", code, name)


def refused(
    kind: Kind, message: str, code: str, param: str | None = None, retry_after: float = RETRY_SECONDS
) -> Refusal:
    """A refusal of some kind.

    Args:
        code: a stable word for programs.
        retry_after: seconds, where another try may succeed.
    """
    error = {"message": message, "type": kind.type, "param": param, "code": code}
    # OpenAI's clients try again by themselves what is worth it, and read both headers.
    headers = {"x-should-retry": "true" if kind.retry else "false"}
    if kind.retry:
        headers["retry-after"] = f"{max(1, round(retry_after + 0.499))}"
    return Refusal(kind.status, error, headers)


def param(name: str) -> str:
    """The name of a request's field in the OpenAI API."""
    for pattern, words in PARAMS:
        if pattern.match(name):
            return pattern.sub(words, name, count=1)
    return name


def _word(error: Exception) -> str:
    """The name of an error's class in snake case: "BackendBusy" is "backend_busy"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()
