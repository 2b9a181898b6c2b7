"""gRPC's server, mended: a call of a method whose name is not UTF-8 would end it.

gRPC decodes the names of methods that nobody has registered in the loop that accepts all calls, and an error there
shuts the whole server down. Anyone who can connect can send such a name. Here all methods are registered, and calls of
others are answered UNIMPLEMENTED before their names are looked at.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from grpc._cython import cygrpc  # the loop has no public place to mend it
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


class RegisteredServer(Server):
    """A server like that of `grpc.aio.server`, whose methods are added by `add_registered_method_handlers`.

    Args:
        options: gRPC's channel arguments.
    """

    def __init__(self, options: Sequence[tuple[str, Any]]) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = _Calls(self._loop, options)
