"""The boundary around every method of the API: identifies the caller, and turns malformed requests, overload and errors
into statuses."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from router.errors import Draining, InvalidRequest, Overloaded
from router.events import CallCompleted
from router.ports import Observer
from router.rpc.identity import Guard
from router.rpc.parsing import Malformed, tolerant
from router.rpc.status import to_status
from router.telemetry import tracing
from router.telemetry.tracing import Tracer, passed_on

Context: TypeAlias = Any  # grpc.aio.ServicerContext; its published types lack abort_with_status
Handler: TypeAlias = Any  # grpc.RpcMethodHandler, which cannot be subscripted at run time


class Boundary:
    """Wraps the methods of a service.

    Args:
        guard: identifies the caller, and refuses those that may not call.
        max_calls: calls of this service under way at once; more are refused before any work starts.
        observer: sees how every call ended.
        tracer: makes a span around every call.
    """

    def __init__(self, guard: Guard, max_calls: int, observer: Observer, tracer: Tracer = passed_on) -> None:
        self._guard = guard
        self._permit = Permit(max_calls)
        self._observer = observer
        self._tracer = tracer

    def drain(self) -> None:
        """Refuse new calls from now on."""
        self._permit.draining = True

    def around(self, service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
        """A handler of the service's methods, each of them the servicer's own, wrapped."""
        # Wrapped once, here: an interceptor would wrap the method again in every call.
        methods = {method.name: self._handler(method, getattr(servicer, method.name)) for method in service.methods}
        return grpc.method_handlers_generic_handler(service.full_name, methods)

    def _handler(self, method: MethodDescriptor, behaviour: Any) -> Handler:
        parse = tolerant(GetMessageClass(method.input_type).FromString, method.input_type.full_name)
        serialize = GetMessageClass(method.output_type).SerializeToString
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method.name, behaviour), parse, serialize)
        return grpc.unary_unary_rpc_method_handler(self._unary(method.name, behaviour), parse, serialize)

    def _unary(self, method: str, behaviour: Any) -> Any:
        answered = CallCompleted(method, "OK")

        async def guarded(request: Any, context: Context) -> Any:
            with self._traced(method, context) as onward:
                tracing.carried.set(onward)
                try:
                    # In this order: a caller without credentials takes no place, and learns nothing of its request.
                    call = self._guard(method, context)
                    with self._permit:
                        response = await behaviour(_parsed(request), call)
                except Exception as error:  # the last line of defence: nothing may reach a client as a traceback
                    await self._abort(method, error, context)
                self._observer(answered)
                return response

        return guarded

    def _streaming(self, method: str, behaviour: Any) -> Any:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._traced(method, context) as onward:
                tracing.carried.set(onward)
                try:
                    call = self._guard(method, context)
                    with self._permit:
                        # Closed at once where the caller leaves: the garbage collector would let the engine run on.
                        async with aclosing(behaviour(_parsed(request), call)) as responses:
                            async for response in responses:
                                yield response
                except Exception as error:  # the last line of defence: nothing may reach a client as a traceback
                    await self._abort(method, error, context)
                self._observer(CallCompleted(method, "OK"))

        return guarded

    async def _abort(self, method: str, error: Exception, context: Context) -> None:
        status = to_status(error)
        self._observer(CallCompleted(method, status.code.name))
        await context.abort_with_status(status)

    def _traced(self, method: str, context: Context) -> AbstractContextManager[Mapping[str, str]]:
        metadata = context.invocation_metadata() or ()
        return self._tracer(method, {name: value for name, value in metadata if name in tracing.HEADERS})


class Permit:
    """Surrounds every call; refuses calls beyond `most`, and all new ones while draining."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way = 0
        self.draining = False

    def __enter__(self) -> None:
        if self.draining:
            raise Draining("this replica is shutting down; another one answers")
        if self._under_way >= self._most:
            raise Overloaded("calls", f"{self._most} calls are under way")
        self._under_way += 1

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1


def _parsed(request: Any) -> Any:
    if isinstance(request, Malformed):
        raise InvalidRequest(request.field, request.problem)
    return request
