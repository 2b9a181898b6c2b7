"""Errors of calls: one class for each gRPC status that a caller would tell apart.

ClientError               any status; `code` names it
├── InvalidArgument       a value is wrong; `field` names it. Some are found before anything is sent
├── NotFound              no such model, tenant, rung or decision
├── FailedPrecondition    nothing meets the target, or the model cannot do what is asked
├── Unauthenticated       the key is missing, wrong or expired
├── PermissionDenied      the key does not open this
├── ResourceExhausted     the service has no room; `retry_after` says when it may have
├── Unavailable           no service answers, or something behind it is down
├── DeadlineExceeded      the call took longer than its timeout
└── Cancelled             the service stopped in the middle of the call
"""

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from router.errors import RouterError

DETAILS = "grpc-status-details-bin"


class ClientError(RouterError):
    """A call failed.

    Attributes:
        code: name of the gRPC status ("INVALID_ARGUMENT").
        fields: fields of the request at fault, as the proto names them.
        retry_after: seconds after which another try may succeed; None where the service does not say.
    """

    code = "UNKNOWN"

    def __init__(
        self, message: str, *, code: str = "", fields: Sequence[str] = (), retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.fields = tuple(fields)
        self.retry_after = retry_after

    @property
    def field(self) -> str | None:
        """The first field at fault; None where the error names none."""
        return next(iter(self.fields), None)


class InvalidArgument(ClientError):
    """A value is wrong; `field` names it."""

    code = "INVALID_ARGUMENT"


class NotFound(ClientError):
    """There is no such model, tenant, rung or decision."""

    code = "NOT_FOUND"


class FailedPrecondition(ClientError):
    """Nothing meets the target and the caller asked to be refused, or the model cannot do what is asked."""

    code = "FAILED_PRECONDITION"


class Unauthenticated(ClientError):
    """The key is missing, wrong or expired."""

    code = "UNAUTHENTICATED"


class PermissionDenied(ClientError):
    """The key does not open this."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(ClientError):
    """The service has no room for this call; `retry_after` says when it may have."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(ClientError):
    """No service answers, or something behind it is down."""

    code = "UNAVAILABLE"


class DeadlineExceeded(ClientError):
    """The call took longer than its timeout."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(ClientError):
    """The service stopped in the middle of the call."""

    code = "CANCELLED"


KINDS = {kind.code: kind for kind in ClientError.__subclasses__()}


@contextmanager
def mapped_errors(server: str) -> Iterator[None]:
    """Raise gRPC's errors of calls to `server` as ClientError."""
    try:
        yield
    except grpc.RpcError as error:
        raise _mapped(error, server) from error


def _mapped(error: Any, server: str) -> ClientError:
    code, status = error.code().name, _status(error)
    bad, retry = BadRequest(), RetryInfo()
    for detail in status.details:
        _ = detail.Unpack(bad) or detail.Unpack(retry)
    delay = retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None
    fields = [violation.field for violation in bad.field_violations]
    # The service's own message first: an engine's "Connection refused" in it does not mean that no service answers.
    message = status.message or _explained(code, error.details() or code, server)
    return KINDS.get(code, ClientError)(message, code=code, fields=fields, retry_after=delay)


def _status(error: Any) -> Status:
    """The status that the service sent; empty where gRPC itself gave up."""
    metadata = error.trailing_metadata() or ()
    return next((Status.FromString(value) for name, value in metadata if name == DETAILS), Status())


NOT_GRPC = "{} does not speak gRPC"
CLOSED = "{} closed the connection: it may want TLS or a client certificate, have stopped, or not speak gRPC"
CAUSES = {
    "Stream removed": "{} closed the connection in the middle of the call",
    "Connection refused": "no service at {}; start one with `budget-router serve`",
    "No such file or directory": "no service at {}; start one with `budget-router serve`",
    "errors resolving": "no service at {}: its name is not known",
    "the target uri is not valid": "no service at {}: its name is not known",
    "No route to host": "no service at {}: there is no route to it",
    "Network is unreachable": "no service at {}: there is no route to it",
    "WRONG_VERSION_NUMBER": "the service at {} does not speak TLS",
    "CERTIFICATE_VERIFY_FAILED": "the certificate of {} is signed by nobody whom this machine or `ca` trusts",
    "security handshaker": "the given certificates do not fit together, or are none",
    "got frame type 0)": CLOSED,  # what HTTP/2 makes of the alert with which TLS refuses plaintext
    "Failed parsing HTTP/2": NOT_GRPC,
    "Received http2 header": NOT_GRPC,
    "Connection reset": CLOSED,
    "Broken pipe": CLOSED,
    "failing; last error: UNAVAILABLE": CLOSED,
}
"""What gRPC says, and what it means; the first that is found counts."""

_LOCALHOST = re.compile(r"(?:dns:(?:///)?)?localhost:(?P<port>\d+)")
PROBE_SECONDS = 0.2


def _explained(code: str, details: str, server: str) -> str:
    """gRPC's own message, or a plainer one where the cause is known."""
    if code == "DEADLINE_EXCEEDED":
        return f"no answer from {server} within the timeout"
    if code not in ("UNAVAILABLE", "UNIMPLEMENTED"):
        return details
    meaning = next((meaning for said, meaning in CAUSES.items() if said in details), None)
    if meaning == CAUSES["Connection refused"] and _accepts(server):
        meaning = CLOSED
    return details if meaning is None else meaning.format(server)


def _accepts(server: str) -> bool:
    """True if something listens at some address of localhost.

    localhost is 127.0.0.1 and ::1, and gRPC tells only the error of the last one that it tried: "refused" may be about
    the address where nobody listens, while another server holds the port at the other one.
    """
    if (found := _LOCALHOST.fullmatch(server)) is None:
        return False
    try:
        socket.create_connection(("localhost", int(found["port"])), PROBE_SECONDS, all_errors=True).close()
    except ExceptionGroup as tried:
        # A listener that does not get round to it makes callers wait; where nobody listens, the kernel refuses at once.
        broken = [one for one in tried.exceptions if isinstance(one, TimeoutError | ConnectionError)]
        return any(not isinstance(one, ConnectionRefusedError) for one in broken)
    except OSError:
        return False
    return True
