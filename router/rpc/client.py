"""A small blocking client for the command line and for scripts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.errors import RemoteError


def user_prompt(text: str, options: pb.RoutingOptions | None = None) -> pb.DecideRequest:
    """A request with one user message. Raises ValueError where the text is not Unicode."""
    return pb.DecideRequest(messages=[pb.Message(role=pb.ROLE_USER, content=text)], options=options)


def to_json(message: Message) -> str:
    """A message as one line of JSON, field names as in the proto file, absent values as null or zero."""
    fields: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(fields, ensure_ascii=False)


class Client:
    """Calls the service at `server` (HOST:PORT); every call ends within `timeout` seconds. Raises RemoteError."""

    def __init__(self, server: str, timeout: float = 60.0) -> None:
        self._channel = grpc.insecure_channel(server)
        self._timeout = timeout
        self._routing = pb_grpc.BudgetRouterServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def decide(self, request: pb.DecideRequest) -> pb.Decision:
        """The decision for one prompt."""
        with _translated():
            response: pb.DecideResponse = self._routing.Decide(request, timeout=self._timeout)
            return response.decision

    def generate(self, request: pb.GenerateRequest) -> Iterator[pb.GenerateResponse]:
        """The events of a stream, as they come."""
        with _translated():
            yield from self._routing.Generate(request, timeout=self._timeout)

    def report(self, request: pb.ReportOutcomeRequest) -> None:
        """Say how right an answer was."""
        with _translated():
            self._routing.ReportOutcome(request, timeout=self._timeout)

    def serving(self) -> bool:
        """What the health service says; waits for the server to come up."""
        with _translated():
            response = self._health.Check(
                health_pb2.HealthCheckRequest(), timeout=self._timeout, wait_for_ready=True
            )
            return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise RemoteError(error.code().name, error.details() or "", _fields(error)) from error


def _fields(error: grpc.RpcError) -> list[str]:
    """The fields at fault, from the status details."""
    status = rpc_status.from_call(error)
    names = []
    for detail in status.details if status else ():
        bad = BadRequest()
        if detail.Unpack(bad):
            names += [violation.field for violation in bad.field_violations]
    return names
