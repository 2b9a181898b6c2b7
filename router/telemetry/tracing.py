"""The trace that a call belongs to: W3C headers of the caller, which go on to the engine."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar

HEADERS = ("traceparent", "tracestate")

carried: ContextVar[Mapping[str, str]] = ContextVar("carried", default={})  # noqa: B039  no code writes into it
"""Headers for requests made on behalf of this call; every call runs in a context of its own."""

Tracer = Callable[[str, Mapping[str, str]], AbstractContextManager[Mapping[str, str]]]
"""Takes a method and the caller's headers, and yields the headers to send on; the call runs within."""


def passed_on(method: str, headers: Mapping[str, str]) -> AbstractContextManager[Mapping[str, str]]:
    """The tracer of a service that has none: the caller's headers go on unchanged."""
    return nullcontext(headers)
