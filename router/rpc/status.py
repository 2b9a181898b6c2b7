"""Errors -> gRPC status, in one table, with google.rpc details. Clients never see an unknown error's text."""

import asyncio
from collections.abc import Sequence
from typing import Any as AnyType
from typing import TypeAlias

import grpc
import structlog
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from router import errors

Context: TypeAlias = AnyType  # grpc.aio.ServicerContext; its published types lack abort_with_status

WORTH_RETRYING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
DOMAIN = "budget-router"
RETRY_SECONDS = 1
NO_RETRY = ("grpc-retry-pushback-ms", "-1")
"""Trailing metadata: gRPC's clients do not try the call again by themselves."""

CODES: Sequence[tuple[type[errors.RouterError], grpc.StatusCode]] = (
    (errors.InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.TargetUnmet, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Draining, grpc.StatusCode.UNAVAILABLE),
    (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (errors.PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (errors.BackendBusy, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.BackendRefused, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.DependencyError, grpc.StatusCode.UNAVAILABLE),
    (errors.ArtifactError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.RouterError, grpc.StatusCode.UNKNOWN),
)
"""gRPC status by class of error; the first class that matches counts."""


def to_status(error: Exception) -> grpc.Status:
    """The status of an error, with details; an unknown error is logged, and its text is withheld from the client."""
    if not isinstance(error, errors.RouterError):
        structlog.get_logger().error("unexpected", exc_info=error)
        return _status(grpc.StatusCode.UNKNOWN, "unexpected error, logged on the server", [])
    code = next(code for kind, code in CODES if isinstance(error, kind))
    details: list[Message] = [ErrorInfo(reason=type(error).__name__, domain=DOMAIN)]
    if isinstance(error, errors.FieldError):
        violation = BadRequest.FieldViolation(field=error.field, description=error.problem)
        details.append(BadRequest(field_violations=[violation]))
    if code in WORTH_RETRYING:
        # Clients that retry by themselves read this; without it they would come back at once.
        after = error.retry_after if isinstance(error, errors.Overloaded | errors.BackendBusy) else RETRY_SECONDS
        details.append(RetryInfo(retry_delay=Duration(nanos=int(after % 1 * 1e9), seconds=int(after))))
    # Its caller has waited for seconds already; the tries of gRPC's clients would make that four times as long.
    return _status(code, str(error), details, [NO_RETRY] if isinstance(error, errors.OutcomeLogHangs) else [])


async def end_with(status: grpc.Status, context: Context) -> None:
    """End a call with a status that is an error. Raises grpc.aio.AbortError, which gRPC waits for."""
    try:
        await context.abort_with_status(status)
    except grpc.aio.AbortError as aborted:
        # The call keeps this error, whose traceback keeps the frames of the call and all that they hold: its message,
        # its metadata. Only the collector, which runs rarely, would find them. gRPC has the error in the next step.
        asyncio.get_running_loop().call_soon(_forget_frames, aborted)
        raise


def _forget_frames(error: BaseException) -> None:
    error.__traceback__ = error.__context__ = None


def _status(
    code: grpc.StatusCode, message: str, details: Sequence[Message], metadata: Sequence[tuple[str, str]] = ()
) -> grpc.Status:
    packed = []
    for detail in details:
        box = Any()
        box.Pack(detail)
        packed.append(box)
    # A named tuple, which its published type does not say.
    status: AnyType = rpc_status.to_status(Status(code=code.value[0], message=message, details=packed))
    with_metadata: grpc.Status = status._replace(trailing_metadata=(*status.trailing_metadata, *metadata))
    return with_metadata
