"""What the work of a call raises becomes the status of the call, in one place for all services."""

from types import TracebackType
from typing import Any, TypeAlias

import grpc

from router.events import CallCompleted
from router.ports import Observer
from router.rpc.status import end_with, to_status

Context: TypeAlias = Any  # grpc.aio.ServicerContext


class Refusals:
    """Surrounds the work of a call. An error within ends the call with its status, and is observed.

    This is the last line of defence: no traceback, and no text of an unknown error, reaches a caller.

    Args:
        method: the name under which the call is observed.
    """

    __slots__ = ("_context", "_method", "_observer")

    def __init__(self, method: str, context: Context, observer: Observer) -> None:
        self._method = method
        self._context = context
        self._observer = observer

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        # gRPC raises the second kind where it cannot write, since the caller has left: there is nobody to answer.
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.InternalError):
            status = to_status(error)
            self._observer(CallCompleted(self._method, status.code.name))
            await end_with(status, self._context)
