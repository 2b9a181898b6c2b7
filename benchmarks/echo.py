"""A minimal grpc.aio server on the router's event loop: `python -m benchmarks.echo N` answers N bytes to every call."""

import gc
import sys
from typing import Any

import grpc
import uvloop

from router._gen import budget_router_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["BudgetRouterService"].full_name


async def main() -> None:
    """Serve until the process is stopped."""
    reply = b"\x00" * int(sys.argv[1])

    async def answer(request: bytes, context: Any) -> bytes:
        return reply

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE, {"Decide": grpc.unary_unary_rpc_method_handler(answer)})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.freeze()
    print(f"echo: listening on 127.0.0.1:{port}", file=sys.stderr, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
