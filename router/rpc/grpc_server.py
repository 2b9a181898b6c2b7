"""gRPC's server, mended in two places where a caller without credentials could harm it.

gRPC decodes the names of methods that nobody has registered in the loop that accepts all calls. A name that is not
UTF-8 is an error there, which shuts the whole server down. Here all methods are registered, and calls of others are
answered UNIMPLEMENTED before their names are looked at.

And gRPC's search for a call's handler leaves a cycle of objects behind, with the call's metadata in it. The collector,
which runs rarely, finds it late, and metadata can have megabytes. Here the search leaves nothing behind.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from grpc._cython import cygrpc  # there is no public place for either
from grpc.aio._server import Server


class _Calls(cygrpc.AioServer):  # type: ignore[misc]  # it has no published types
    """Accepts calls of registered methods."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: Sequence[tuple[str, Any]]) -> None:
        super().__init__(loop, None, (), (), tuple(options), None)
        self._refusals: set[asyncio.Task[None]] = set()  # the loop alone would not keep them alive

    async def _request_call(self) -> None:
        """gRPC's loop waits for this as for the next call of a method that is not registered."""
        while True:
            refusal = asyncio.create_task(_refuse(await super()._request_call()))
            self._refusals.add(refusal)
            refusal.add_done_callback(self._refusals.discard)


async def _refuse(call: Any) -> None:
    """Answer a call as one of a method that does not exist."""
    loop, nothing = asyncio.get_running_loop(), cygrpc._MethodResolver([], {})
    answer = cygrpc._handle_rpc("", nothing, (), call, loop, False)
    await cygrpc._schedule_rpc_coro(answer, call, loop, "")


async def _find_method_handler(method: str, metadata: tuple[Any, ...], resolver: Any, _interceptors: object) -> Any:
    """The handler of a method, as gRPC's own function finds it where a server has no interceptors."""
    return resolver.resolve_handler(cygrpc._HandlerCallDetails(method, metadata))


class RegisteredServer(Server):
    """A server like that of `grpc.aio.server`, whose methods are added by `add_registered_method_handlers`.

    Args:
        options: gRPC's channel arguments.
    """

    def __init__(self, options: Sequence[tuple[str, Any]]) -> None:
        cygrpc._find_method_handler = _find_method_handler
        self._loop = cygrpc.get_working_loop()
        self._server = _Calls(self._loop, options)
