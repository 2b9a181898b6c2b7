"""The trace that a call belongs to: W3C headers that come in, and go on to the engine."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar

HEADERS = ("traceparent", "tracestate")

carried: ContextVar[Mapping[str, str]] = ContextVar("carried", default={})  # noqa: B039  nobody writes into it
"""Headers for whatever is asked on behalf of this call; every call runs in a context of its own."""

Tracer = Callable[[str, Mapping[str, str]], AbstractContextManager[Mapping[str, str]]]
"""From a method and the headers that came in to what goes on; the call runs within."""


def passed_on(method: str, headers: Mapping[str, str]) -> AbstractContextManager[Mapping[str, str]]:
    """Without a tracer of our own: what came in goes on."""
    return nullcontext(headers)
