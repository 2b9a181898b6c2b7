"""What an engine's status line and headers mean, before anything of its answer is read."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from aiohttp import ClientResponse

from router.backends.text import loads
from router.backends.urls import origin
from router.errors import BackendBusy, BackendError, BackendMisconfigured, BackendRefused, BackendUnavailable

RETRY_SECONDS, LONGEST_RETRY = 1.0, 60.0
"""Seconds until another try where the engine names none, and at most."""

MODELS = "/v1/models"
"""The list of models: it holds nothing of a request, so a refusal is about the key."""

NOT_THE_REQUESTS = {402: "asks for payment", 404: "has no {path}",
                    405: "has no {path}", 407: "stands behind a proxy that wants a password"}  # fmt: skip
"""Refusals that every request would meet: another engine may well answer."""


def check(response: ClientResponse, content_type: str, path: str) -> None:
    """Pass an answer of that type. Raises BackendBusy, BackendRefused, BackendUnavailable, BackendError."""
    headers, status = response.headers, response.status
    if 300 <= status < 400:
        raise BackendUnavailable(_redirected(status, headers.get("Location", "")))
    if status >= 400:
        raise failure(status, headers, path)
    # Not asked for: a few kilobytes can hold gigabytes.
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BackendError("backend: its answer is compressed, which was not asked for")
    if response.content_type != content_type:
        raise BackendError(f"backend: it answers {_shown(response.content_type)}, not {content_type}")


def failure(status: int, headers: Mapping[str, str], path: str) -> BackendError:
    """The error that a status of 400 or more stands for.

    Too many requests are no fault of the engine; neither is a 503 that says when to come again.
    """
    if status == 429 or (status == 503 and "Retry-After" in headers):
        return BackendBusy(f"backend: it has no room (HTTP {status})", retry_after(headers.get("Retry-After", "")))
    if status >= 500 or status == 408:
        return BackendUnavailable(f"backend: HTTP {status}")
    if status == 401 or (status == 403 and path == MODELS):
        return BackendMisconfigured(f"backend: it refuses the key, or wants one (HTTP {status})", "key")
    if status in NOT_THE_REQUESTS:
        # Engines answer 404 to a wrong method and, where they generate, to a wrong model.
        place = f"{path} for this model" if path.endswith("completions") else path
        return BackendError(f"backend: it {NOT_THE_REQUESTS[status].format(path=place)} (HTTP {status})")
    return BackendRefused(f"backend: it refuses the request with HTTP {status}")


def reported(error: Any, path: str) -> BackendError:
    """The error that an engine reports within a stream, by the status that it names, if any."""
    code = error.get("code") if isinstance(error, dict) else None
    if type(code) in (int, str) and (status := re.fullmatch("4[0-9]{2}", str(code)[:4])):
        return failure(int(status[0]), {}, path)
    return BackendError("backend: it reports an error within the stream")


def refused_field(body: bytes) -> str:
    """The field of a request that a refusal names, as OpenAI's API does; "" where it names none."""
    try:
        named = loads(body)["error"]["param"]
    except (ValueError, TypeError, LookupError):
        return ""
    return named if isinstance(named, str) else ""


def retry_after(value: str) -> float:
    """Seconds of a Retry-After header, a number or a date, from RETRY_SECONDS to LONGEST_RETRY."""
    try:
        seconds = float(value) if re.fullmatch(r"\s*[0-9]{1,12}(\.[0-9]{1,6})?\s*", value) else _until(value)
    except (ValueError, TypeError, OverflowError):
        return RETRY_SECONDS
    return min(max(math.ceil(seconds), RETRY_SECONDS), LONGEST_RETRY)


def _until(date: str) -> float:
    """Seconds until an HTTP date. Raises ValueError."""
    then = parsedate_to_datetime(date)
    return (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def _redirected(status: int, location: str) -> str:
    """Only the place that a redirect names is repeated: the rest of it may hold a key, or the prompt."""
    place = origin(location)
    where = f"to {place}" if place else "elsewhere on the same host"
    advice = "write the URL at which the engine itself answers"
    return f"backend: it redirects {where} (HTTP {status}), which is never followed; {advice}"


def _shown(content_type: str) -> str:
    return content_type if re.fullmatch(r"[\w.+/-]{1,60}", content_type) else "an unknown type"
