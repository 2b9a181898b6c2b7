"""The servers: their addresses and processes, gateways that ask them, who may call, and what they show."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from router.settings.group import DAY, MOST, Group


class Server(Group):
    """Addresses and processes of the service."""

    listen: str = Field("127.0.0.1:50051", description="HOST:PORT of the gRPC server; port 0 takes a free one")
    http_listen: str = Field(
        "", description="HOST:PORT of the OpenAI-compatible HTTP API: docs/openai.md; without it there is none"
    )
    workers: int = Field(
        1, ge=1, le=1_024, description="processes that answer on that port together: docs/operations.md#several-workers"
    )
    connection_seconds: float = Field(
        0,
        ge=0,
        le=DAY,
        description="age at which clients are asked to reconnect, and so find other workers and new replicas; "
        "0 = never",
    )
    max_streams: int = Field(
        1_000, ge=1, le=MOST, description="calls under way at once; further ones are answered RESOURCE_EXHAUSTED"
    )
    stream_window_ms: float = Field(
        0,
        ge=0,
        le=1_000,
        description="milliseconds within which deltas of a stream leave together: the first one leaves at once, then "
        "at most one message of a kind a window; 0 = each leaves as it comes",
    )
    drain_seconds: float = Field(20, ge=0, le=DAY, description="time that streams have to end after SIGTERM")
    health_listen: str = Field(
        "",
        description="HOST:PORT that answers health checks alone, without TLS, for probes that speak none; without it "
        "there is none",
    )
    admin_listen: str = Field("127.0.0.1:50052", description="HOST:PORT of the admin service")
    admin_token: SecretStr = Field(
        SecretStr(""), description="bearer token of the admin service, which is closed without one"
    )


class Gateway(Group):
    """How a gateway asks for budgets."""

    envoy: bool = Field(
        False,
        description="answer Envoy's external processing on the address of the gRPC server, too, so that a gateway asks "
        "for budgets and carries the bytes itself: docs/envoy.md",
    )
    envoy_failure: Literal["open", "closed"] = Field(
        "open",
        description="a request of a gateway that is wrong or cannot be decided about: `open` lets it go on at the "
        "engine's default, `closed` answers it with an error",
    )
    envoy_seconds: float = Field(
        0.15, gt=0, le=DAY, description="seconds that a decision may take; less than Envoy's `message_timeout`"
    )
    envoy_tenant_header: str = Field(
        "",
        description="header in which the gateway names the tenant of a request, such as `x-budget-router-tenant`, and "
        "which it takes from no caller; without it all requests are the gateway's own",
    )
    envoy_destination_header: str = Field(
        "",
        description="header in which the router names the engine that is to answer, HOST:PORT, such as "
        "`x-gateway-destination-endpoint`: a replica that is up, or the failover; without it the gateway chooses",
    )
    envoy_response_headers: bool = Field(
        False,
        description="say in the headers of responses what was decided, for which the gateway asks once more; without "
        "it the gateway has it as dynamic metadata, which it can write into headers by itself",
    )
    envoy_outcomes: bool = Field(
        False,
        description="record how generations behind a gateway ended and what they cost, from the responses that the "
        "gateway shows in its observability mode, without waiting",
    )


class Access(Group):
    """Who may call, and how connections are protected."""

    tenants: Path | None = Field(
        None,
        description="TOML file of tenants, their keys and limits: docs/operations.md; without it everyone may call, as "
        "`default`; followed",
    )
    require_keys: bool = Field(
        False,
        description="refuse a tenants file without any key or certificate, at the start and while serving, also where "
        "nobody else can connect; workers inherit it from a supervisor that has seen one",
    )
    public: frozenset[Literal["plaintext", "no-keys", "metrics", "plaintext-keys"]] = Field(
        frozenset(),
        description="protection that addresses beyond this machine may lack: a JSON list of `plaintext`, `no-keys`, "
        "`metrics` and `plaintext-keys`: docs/operations.md#keys-and-tls",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the server's certificate chain; without it there is no TLS; followed"
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key; followed")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authority that must have signed clients' certificates; followed"
    )


class Telemetry(Group):
    """Where metrics and traces go."""

    metrics_listen: str = Field("", description="HOST:PORT of the Prometheus endpoint; without it there is none")
    otlp_url: str = Field("", description="URL of a collector of traces (OTLP over gRPC); needs the extra `otel`")
