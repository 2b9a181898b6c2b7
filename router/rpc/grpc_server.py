"""gRPC's server, mended where a caller without credentials could harm it.

gRPC hands on one call after the other in a loop of its own, and decodes the names of methods that are not registered.
A name that is not UTF-8 is an error there, which shuts the whole server down. Here all methods are registered, and the
names of others are not looked at.

gRPC also hands on calls that are cancelled already, and calls with megabytes of metadata: its limit binds a client only
once the client has acknowledged it. Here a connection that sends either is closed, and its other calls are dropped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any, TypeAlias

import grpc
from grpc._cython import cygrpc  # there is no public place for either
from grpc.aio._server import Server

from router.rpc.connections import Connections
from router.rpc.metadata import MAX_METADATA_BYTES, Metadata, metadata, read

State: TypeAlias = Any  # cygrpc.RPCState, which has no published type

answered: ContextVar[bool] = ContextVar("answered", default=False)
"""The call at hand has had what it asked for: if its caller ends it now, that is no misuse."""

AT_ONCE = 8
"""Calls of a method that are accepted in one turn of the event loop."""

# Of the same handlers gRPC asks this twice in every call, and finds out by forty calls of `inspect`.
cygrpc._is_async_handler = lru_cache(64)(cygrpc._is_async_handler)


class _Calls(cygrpc.AioServer):  # type: ignore[misc]  # it has no published types
    """Accepts calls of registered methods, and refuses others."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: Sequence[tuple[str, Any]]) -> None:
        super().__init__(loop, None, (), (), tuple(options), None)
        self._running_on = loop
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._connections = Connections()
        self._calls: set[asyncio.Task[None]] = set()  # the loop alone would not keep them alive

    def add_registered_method_handlers(self, handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]) -> None:
        """Add methods by full name; all of them take a stream of requests."""
        super().add_registered_method_handlers(handlers)
        self._handlers.update(handlers)

    async def _request_registered_call(self, method: bytes) -> None:
        """gRPC's loop waits for this as for the next call of a method. It ends with the server alone, by an error."""
        name = method.decode()
        accept = partial(super()._request_registered_call, method)
        await asyncio.gather(*(self._accept(accept, name, self._handlers[name]) for _ in range(AT_ONCE)))

    async def _request_call(self) -> None:
        """The same for calls of methods that are not registered."""
        await self._accept(super()._request_call, "", None)

    async def _accept(self, accept: Callable[[], Any], name: str, handler: Any) -> None:
        while True:
            self._begin(await accept(), name, handler)

    def _begin(self, state: State, name: str, handler: Any) -> None:
        loop = self._running_on
        context = cygrpc._ServicerContext(state, None, None, loop)
        connection = context.peer()
        if not self._connections.take(connection):
            return  # gRPC cancels a call that nobody holds
        # At once, and not in a task: of all calls that are too large, one alone is looked at.
        headers = read(context)
        if headers is None:
            self._connections.close(connection)
        answer = self._watched(connection, headers or {}, self._answer(state, context, headers, handler))
        call = loop.create_task(cygrpc._schedule_rpc_coro(answer, state, loop, name))
        self._calls.add(call)
        call.add_done_callback(partial(self._forget, connection))

    def _forget(self, connection: str, call: "asyncio.Task[None]") -> None:
        self._calls.discard(call)
        self._connections.free(connection)

    async def _watched(self, connection: str, headers: Metadata, answer: Awaitable[None]) -> None:
        metadata.set(headers)
        try:
            await answer
        except (asyncio.CancelledError, cygrpc.ExecuteBatchError):  # the caller takes no answer
            if not answered.get():
                self._connections.cancelled(connection)
            raise

    def _answer(self, state: State, context: Any, headers: Metadata | None, handler: Any) -> Any:
        if headers is None:
            return context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"metadata: at most {MAX_METADATA_BYTES} bytes")
        if handler is None:
            return context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        kind = cygrpc._handle_stream_stream_rpc if handler.response_streaming else cygrpc._handle_stream_unary_rpc
        return kind(handler, state, self._running_on)


class RegisteredServer(Server):
    """A server like that of `grpc.aio.server`, whose methods are added by `add_registered_method_handlers`.

    All of them are methods to which the caller streams its request.

    Args:
        options: gRPC's channel arguments.
    """

    def __init__(self, options: Sequence[tuple[str, Any]]) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = _Calls(self._loop, options)
