"""Around every method of this API: who calls, requests that do not parse, overload and errors become statuses."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeAlias

import grpc
from grpc.aio import ServerInterceptor

from router import tracing
from router._gen import budget_router_pb2 as pb
from router.errors import Draining, InvalidRequest, Overloaded
from router.ports import Observer
from router.records import Answered
from router.rpc.identity import Guard
from router.rpc.parsing import Malformed, tolerant
from router.rpc.status import to_status
from router.tracing import Tracer, passed_on

Context: TypeAlias = Any  # grpc.aio.ServicerContext; its published types lack abort_with_status
Handler: TypeAlias = Any  # grpc.RpcMethodHandler, which can not be subscripted when running

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class Boundary(ServerInterceptor):
    """Wraps the handlers of this API, and leaves health and reflection alone.

    Args:
        guard: says who calls; whoever may not, comes no further.
        max_calls: calls of this API under way at once; more are refused before any work starts.
        observer: told how every call ended.
        tracer: around every call.
    """

    def __init__(self, guard: Guard, max_calls: int, observer: Observer, tracer: Tracer = passed_on) -> None:
        self._guard = guard
        self._max_calls = max_calls
        self._observer = observer
        self._tracer = tracer
        self._under_way = 0
        self.draining = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The handler of a call, wrapped."""
        handler = await continuation(handler_call_details)
        method = METHODS.get(str(handler_call_details.method))
        if handler is None or method is None:
            return handler
        parse = tolerant(handler.request_deserializer, method.input_type.full_name)
        if handler.response_streaming:
            streaming = self._streaming(method.name, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(streaming, parse, handler.response_serializer)
        unary = self._unary(method.name, handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(unary, parse, handler.response_serializer)

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def guarded(request: Any, context: Context) -> Any:
            with self._traced(method, context):
                try:
                    call = self._guard(method, context)
                    with self._permit():
                        response = await behaviour(_parsed(request), call)
                except Exception as error:  # the last line of defence: nothing may reach a client as a traceback
                    await self._abort(method, error, context)
                self._observer(Answered(method, "OK"))
                return response

        return guarded

    def _streaming(self, method: str, behaviour: Any) -> Any:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._traced(method, context):
                try:
                    call = self._guard(method, context)
                    with self._permit():
                        async with aclosing(behaviour(_parsed(request), call)) as responses:
                            async for response in responses:
                                yield response
                except Exception as error:  # the last line of defence: nothing may reach a client as a traceback
                    await self._abort(method, error, context)
                self._observer(Answered(method, "OK"))

        return guarded

    async def _abort(self, method: str, error: Exception, context: Context) -> None:
        status = to_status(error)
        self._observer(Answered(method, status.code.name))
        await context.abort_with_status(status)

    @contextmanager
    def _traced(self, method: str, context: Context) -> Iterator[None]:
        metadata = dict(context.invocation_metadata() or ())
        with self._tracer(method, {name: metadata[name] for name in tracing.HEADERS if name in metadata}) as onward:
            tracing.carried.set(onward)
            yield

    @contextmanager
    def _permit(self) -> Iterator[None]:
        if self.draining:
            raise Draining("this replica is going away; another one answers")
        if self._under_way >= self._max_calls:
            raise Overloaded("calls", f"{self._max_calls} calls are under way")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


def _parsed(request: Any) -> Any:
    if isinstance(request, Malformed):
        raise InvalidRequest(request.field, request.problem)
    return request
