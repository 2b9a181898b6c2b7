"""Calls of operators to the admin service, whose address and token are not those of the routing service."""

from typing import Any

import grpc

from router._gen import budget_router_pb2 as pb
from router.client.calls import Call
from router.client.connection import Connection
from router.client.credentials import Credentials
from router.client.errors import mapped_errors
from router.client.mirror import plain

ADMIN = "127.0.0.1:50052"
SECONDS = 10.0


def learning_status(server: str, credentials: Credentials) -> dict[str, Any]:
    """How far a service has come in learning, in plain types by the names of the proto. Raises ClientError."""
    connection = Connection(grpc, server, None, credentials)
    try:
        with mapped_errors(server):
            call = Call("GetLearningStatus", pb.GetLearningStatusRequest(), plain, SECONDS)
            return call.read(connection.begin(call))
    finally:
        connection.channel.close()
