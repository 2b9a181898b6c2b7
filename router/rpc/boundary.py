"""The boundary around every method of the API: identifies the caller, bounds what is under way, and turns malformed
requests, overload and errors into statuses."""

from collections.abc import Awaitable, Callable, Container, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from router.admission.identity import Call
from router.admission.permits import Places
from router.events import CallCompleted
from router.ports import Observer
from router.requests.limits import MAX_LARGE_BYTES
from router.rpc.grpc_server import answered
from router.rpc.identity import Guard
from router.rpc.metadata import Metadata, metadata
from router.rpc.parsing import parser
from router.rpc.reading import FairReader, next_message
from router.rpc.refusals import Refusals
from router.telemetry import tracing
from router.telemetry.tracing import Tracer, passed_on

Context: TypeAlias = Any  # grpc.aio.ServicerContext
Handler: TypeAlias = Any  # grpc.RpcMethodHandler, which cannot be subscripted at run time
Parse: TypeAlias = Callable[[bytes], Awaitable[Message | bytes]]


async def unread(data: bytes) -> bytes:
    """A request for a method that reads it by itself."""
    return data


def on_the_wire(response: Message | bytes) -> bytes:
    """A response as bytes, which the behaviour of a method may have made by itself."""
    return response if isinstance(response, bytes) else response.SerializeToString()


class Exchange:
    """The messages of a call in which both sides speak, as bytes.

    Args:
        first: the caller's first message.
    """

    def __init__(self, first: bytes, context: Context) -> None:
        self._first: bytes | None = first
        self._context = context

    async def read(self) -> bytes | None:
        """The caller's next message; None where there is no more."""
        if (data := self._first) is not None:
            self._first = None
            return data
        return await next_message(self._context)

    async def write(self, data: bytes) -> None:
        """Send the caller a message, after which more may follow."""
        await self._context.write(data)


Conversing: TypeAlias = Callable[[Exchange, Call], Awaitable[bytes]]
"""Behaviour of a method in which both sides speak. It returns the last message, which goes out with the call's end."""


class Boundary:
    """Wraps the methods of a service.

    gRPC calls every method as if the caller streamed its request: only then has a method the call before its message,
    and can refuse it unread.

    Args:
        guard: identifies the caller, and refuses those that may not call.
        max_calls: calls of this service under way at once; more are refused before any work starts, and a tenant that
            has more than its share before all of them are taken.
        observer: sees how every call ended.
        tracer: makes a span around every call.
        max_large_bytes: bytes of large messages under way at once; more are refused.

    Attributes:
        observer: the same.
        places: what is under way; other ways in share it.
    """

    def __init__(
        self,
        guard: Guard,
        max_calls: int,
        observer: Observer,
        tracer: Tracer = passed_on,
        max_large_bytes: int = MAX_LARGE_BYTES,
    ) -> None:
        self._guard = guard
        self.places = Places(max_calls, max_large_bytes)
        self._reader = FairReader(max_calls)
        self.observer = observer
        self._tracer = tracer

    def drain(self) -> None:
        """Refuse new calls from now on."""
        self.places.drain()

    def around(self, service: ServiceDescriptor, servicer: object, wire: Container[str] = ()) -> Mapping[str, Handler]:
        """Handlers of the service's methods by name, each of them the servicer's own, wrapped.

        Args:
            wire: methods that take their requests as bytes.
        """
        # Wrapped once, here: an interceptor would wrap the method again in every call.
        return {
            method.name: self._handler(
                method, getattr(servicer, method.name), unread if method.name in wire else parser(method.input_type)
            )
            for method in service.methods
        }

    def conversing(self, method: str, behaviour: Conversing) -> Handler:
        """The handler of a method in which both sides speak. Only its first message is waited for in a queue."""

        completed = CallCompleted(method, "OK")

        async def guarded(_requests: object, context: Context) -> Any:
            headers = metadata.get()
            with self._traced(method, headers) as onward:
                tracing.carried.set(onward)
                async with Refusals(method, context, self.observer):
                    call, data = await self._admitted(method, headers, context)
                    answered.set(True)  # a gateway ends its calls as its own callers leave, which is no misuse
                    with self.places.held(call.tenant, len(data)):
                        last = await behaviour(Exchange(data, context), call)
                self.observer(completed)
                return last

        # To the caller it is a stream. Here it ends in one step, the last message together with the status.
        return grpc.stream_unary_rpc_method_handler(guarded, None, None)

    def _handler(self, method: MethodDescriptor, behaviour: Any, parse: Parse) -> Handler:
        # A method that streams writes by itself. It returns its last message, which leaves together with the status.
        return grpc.stream_unary_rpc_method_handler(self._guarded(method, behaviour, parse), None, on_the_wire)

    def _guarded(self, method: MethodDescriptor, behaviour: Any, parse: Parse) -> Any:
        """A method that streams gets what writes its messages but the last one, as bytes."""
        name, streams, answered = method.name, method.server_streaming, CallCompleted(method.name, "OK")

        async def guarded(_requests: object, context: Context) -> Any:
            headers = metadata.get()
            with self._traced(name, headers) as onward:
                tracing.carried.set(onward)
                async with Refusals(name, context, self.observer):
                    call, data = await self._admitted(name, headers, context)
                    with self.places.held(call.tenant, len(data)):
                        request = await parse(data)
                        answering = behaviour(request, call, context.write) if streams else behaviour(request, call)
                        del request, data  # a stream lasts for minutes, and images are long
                        response = await answering
                self.observer(answered)
                return response

        return guarded

    async def _admitted(self, method: str, headers: Metadata, context: Context) -> tuple[Call, bytes]:
        """The caller and its message, which is not read for those that are refused anyway."""
        # In this order: a caller without credentials takes no place, and learns nothing of its request.
        tenant = self._guard(method, headers, context)
        self.places.require_room(tenant)
        data = await self._reader.read(tenant, context)
        return Call(tenant, context.time_remaining()), data

    def _traced(self, method: str, headers: Metadata) -> AbstractContextManager[Mapping[str, str]]:
        return self._tracer(method, {name: headers[name] for name in tracing.HEADERS if name in headers})
