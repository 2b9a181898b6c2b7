"""A small blocking client for the command line and for scripts, with the channel options that clients should use."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.errors import RemoteError

Told = dict[str, Any]
"""A message as plain data: field names as in the proto file, absent optional fields left out."""


@dataclass(frozen=True)
class Wishes:
    """What to ask of the choice; None and "" leave it to the server."""

    max_loss: float | None = None
    min_quality: float | None = None
    floor: int | None = None
    ceiling: int | None = None
    rung: str = ""
    fail_fast: bool = False

    def to_options(self) -> pb.RoutingOptions:
        """The same as a message."""
        return pb.RoutingOptions(
            max_loss=self.max_loss,
            min_quality=self.min_quality,
            min_thinking_tokens=self.floor,
            max_thinking_tokens=self.ceiling,
            rung=self.rung,
            on_unmet=pb.ON_UNMET_CHEAPEST_NEAR_BEST if self.fail_fast else pb.ON_UNMET_UNSPECIFIED,
        )


ANYTHING = Wishes()

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "budget_router.v1.BudgetRouterService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}
"""Calls are spread over all replicas that a name resolves to; one that is not answered yet goes to another replica.

CANCELLED is what gRPC's server says to calls that reach it while it stops (github.com/grpc/grpc/issues/41785). What the
caller cancels is not tried again, nor is a stream after its first event. A report twice is the same report.
"""

CHANNEL_OPTIONS = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),  # less than the retries of a call take together
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


@dataclass(frozen=True)
class Access:
    """What a service asks of its callers: a key, TLS with an authority of its own, a client certificate; PEM bytes."""

    key: str = ""
    ca: bytes | None = None
    certificate: bytes | None = None
    certificate_key: bytes | None = None

    def channel(self, server: str) -> grpc.Channel:
        """A connection to `server` (HOST:PORT, or any gRPC name such as dns:///HOST:PORT)."""
        if self.ca is None:
            return grpc.insecure_channel(server, CHANNEL_OPTIONS)
        credentials = grpc.ssl_channel_credentials(self.ca, self.certificate_key, self.certificate)
        return grpc.secure_channel(server, credentials, CHANNEL_OPTIONS)

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What goes with every call."""
        return [("authorization", f"Bearer {self.key}")] if self.key else []


ANYONE = Access()


class Client:
    """Calls the service at `server` (HOST:PORT); every call ends within `timeout` seconds. Raises RemoteError."""

    def __init__(self, server: str, timeout: float = 60.0, access: Access = ANYONE) -> None:
        self._channel = access.channel(server)
        self._metadata = access.metadata
        self._timeout = timeout
        self._routing = pb_grpc.BudgetRouterServiceStub(self._channel)
        self._check = health_pb2_grpc.HealthStub(self._channel).Check  # type: ignore[attr-defined]

    def decide(self, text: str, wishes: Wishes = ANYTHING) -> Told:
        """The decision for one user message."""
        request = pb.DecideRequest(messages=_user(text), options=wishes.to_options())
        with _translated():
            response = self._routing.Decide(request, timeout=self._timeout, metadata=self._metadata)
        decision: Told = _told(response)["decision"]
        return decision

    def generate(self, text: str, wishes: Wishes = ANYTHING, temperature: float = 0.0) -> Iterator[Told]:
        """The events of a stream, as they come; each has one key: decision, reasoning, content or completion."""
        sampling = pb.SamplingOptions(temperature=temperature)
        request = pb.GenerateRequest(messages=_user(text), options=wishes.to_options(), sampling=sampling)
        with _translated():
            yield from map(_told, self._routing.Generate(request, timeout=self._timeout, metadata=self._metadata))

    def explain(self, text: str = "", decision_id: str = "", wishes: Wishes = ANYTHING) -> Told:
        """Why a budget was, or would be, chosen: the decision and sentences."""
        request = pb.ExplainRequest(decision_id=decision_id)
        if not decision_id:
            request = pb.ExplainRequest(request=pb.DecideRequest(messages=_user(text), options=wishes.to_options()))
        with _translated():
            return _told(self._routing.Explain(request, timeout=self._timeout, metadata=self._metadata))

    def report(self, decision_id: str, correct: float, label_source: str) -> None:
        """Say how right an answer was (0..1), and who says so ("verifier", "judge", "user", "agreement")."""
        source = f"LABEL_SOURCE_{label_source.upper()}"
        with _translated():
            self._routing.ReportOutcome(
                pb.ReportOutcomeRequest(decision_id=decision_id, correct=correct, label_source=source),
                timeout=self._timeout,
                metadata=self._metadata,
            )

    def serving(self, timeout: float = 30.0) -> bool:
        """What the health service says; waits up to `timeout` seconds for the server to come up."""
        with _translated():
            response = self._check(health_pb2.HealthCheckRequest(), timeout=timeout, wait_for_ready=True)
            return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _user(text: str) -> list[pb.Message]:
    return [pb.Message(role=pb.ROLE_USER, content=text)]


def _told(message: Message) -> Told:
    told: Told = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return told


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        raise RemoteError(error.code().name, error.details() or "", _fields(error)) from error


def _fields(error: grpc.Call) -> list[str]:
    """The fields at fault, from the status details."""
    status = rpc_status.from_call(error)
    names = []
    for detail in status.details if status else ():
        bad = BadRequest()
        if detail.Unpack(bad):
            names += [violation.field for violation in bad.field_violations]
    return names
