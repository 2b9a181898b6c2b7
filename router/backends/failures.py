"""Foreign errors of HTTP and of reading an answer become ours."""

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from router.errors import BackendBusy, BackendError, BackendTimeout, BackendUnavailable, BackendUnreachable

UNCERTAIN = (BackendBusy, BackendTimeout, BackendUnavailable)
"""Failures that say nothing about whether an engine has an address."""

NOT_REACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
"""Errors before a connection stands: the request was not sent, so it is not to blame."""

MALFORMED_RESPONSE = (
    aiohttp.ClientError, HttpProcessingError, ValueError, AttributeError, TypeError, LookupError, RecursionError,
)  # fmt: skip
"""Errors of reading an answer that is not HTTP, not JSON, or not of the API's shape."""


class MappedErrors:
    """Turns foreign errors into ours. An engine's error text is not repeated: it may hold the prompt."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and (ours := _mapped(error)) is not None:
            raise ours from error


def _mapped(error: BaseException) -> BackendError | None:
    """Our error for a foreign one; None for those that pass."""
    named = type(error).__name__
    if isinstance(error, NOT_REACHED):
        return BackendUnreachable(f"backend: it cannot be reached: {_why_not(error)}")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return BackendUnavailable("backend: it closed the connection")
    if isinstance(error, aiohttp.ClientConnectionError):
        return BackendUnavailable(f"backend: {named}")
    if isinstance(error, TimeoutError):
        return BackendTimeout("backend: it took too long")
    if isinstance(error, HttpProcessingError | aiohttp.ClientResponseError):
        return BackendError(f"backend: its answer is not HTTP ({named})")
    if isinstance(error, MALFORMED_RESPONSE):
        return BackendError(f"backend: {named}")
    return BackendUnavailable(f"backend: {named}") if isinstance(error, OSError) else None


def _why_not(error: BaseException) -> str:
    """Why there is no connection, in words that name no address: that may hold a key."""
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answers HTTP {error.status}"
        case aiohttp.ClientConnectorDNSError():
            return "the name of its host is not known"
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not trusted"
        case aiohttp.ClientConnectorSSLError():
            return "it does not speak TLS; is it http:// rather than https://?"
        case aiohttp.ConnectionTimeoutError():
            return "nobody answers at its address"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            return "nothing listens at its port"
        case _:
            return type(error).__name__
