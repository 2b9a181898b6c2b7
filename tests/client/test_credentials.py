"""How keys and certificates travel: never in clear text beyond this machine, unless that is asked for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.client import Client, ClientError, Credentials, InvalidArgument
from router.client.channel import is_loopback, options
from tests.client.conftest import CLIENTS, connected

KEY = "key-of-the-tests"
TLS_HANDSHAKE, HTTP_2 = b"\x16\x03", b"PRI * HTTP/2.0"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs."""
    return trustme.CA()


@pytest.fixture
async def secured(authority: trustme.CA) -> AsyncIterator[str]:
    """A service that wants a client certificate; its decision's id is what came as `authorization`."""

    class Echo(pb_grpc.BudgetRouterServiceServicer):
        async def Decide(self, request: Any, context: Any) -> pb.DecideResponse:
            sent = dict(context.invocation_metadata())
            return pb.DecideResponse(decision=pb.Decision(decision_id=sent.get("authorization", "")))

    made = authority.issue_cert("localhost")
    pair = made.private_key_pem.bytes(), made.cert_chain_pems[0].bytes()
    server = grpc.aio.server()
    pb_grpc.add_BudgetRouterServiceServicer_to_server(Echo(), server)
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True)
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    yield f"localhost:{port}"
    await server.stop(None)


def certified(authority: trustme.CA, **given: Any) -> Credentials:
    """Credentials with a client certificate."""
    made = authority.issue_cert("client.example.com")
    return Credentials(
        certificate=made.cert_chain_pems[0].bytes(), certificate_key=made.private_key_pem.bytes(), **given
    )


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_key_and_a_certificate_reach_a_service_of_a_named_authority(
    secured: str, authority: trustme.CA, kind: str
) -> None:
    credentials = certified(authority, key=KEY, ca=authority.cert_pem.bytes())
    async with connected(kind, secured, timeout=30, credentials=credentials) as client:
        assert (await client.decide("x")).decision_id == f"Bearer {KEY}"


async def test_without_a_named_authority_those_of_this_machine_count(
    secured: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected("asyncio", secured, timeout=1, credentials=certified(authority)) as client:
        with pytest.raises(ClientError):
            await client.decide("x")
    authority.cert_pem.write_to_path(tmp_path / "trusted.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    async with connected("asyncio", secured, timeout=30, credentials=certified(authority)) as client:
        assert (await client.decide("x")).decision_id == ""


async def first_bytes(host: str, credentials: Credentials) -> bytes:
    """What a client says first to a service on a port of this machine, which it calls by the name `host`."""
    said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun = await reader.read(1 << 16)
        if not said.done():
            said.set_result(begun)
        writer.close()

    async with await asyncio.start_server(listen, "0.0.0.0", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connected("asyncio", f"{host}:{port}", timeout=30, credentials=credentials) as client:
            call = asyncio.create_task(client.decide("x"))
            try:
                return await asyncio.wait_for(said, 30)
            finally:
                call.cancel()
                await asyncio.wait([call])


@pytest.mark.parametrize(
    ("host", "credentials", "begins"),
    [
        ("127.0.0.1", Credentials(KEY), HTTP_2),
        ("0.0.0.0", Credentials(KEY), TLS_HANDSHAKE),  # this machine, by a name that is not loopback's
        ("0.0.0.0", Credentials(KEY, plaintext=True), HTTP_2),
        ("0.0.0.0", Credentials(), HTTP_2),
    ],
    ids=["key on loopback", "key beyond", "key beyond in plaintext", "nothing to hide"],
)
async def test_a_key_beyond_loopback_goes_through_tls(host: str, credentials: Credentials, begins: bytes) -> None:
    begun = await first_bytes(host, credentials)
    assert begun.startswith(begins)


async def test_a_certificate_alone_means_tls(authority: trustme.CA) -> None:
    assert (await first_bytes("127.0.0.1", certified(authority))).startswith(TLS_HANDSHAKE)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"key": "a\nb"}, "key"),
        ({"key": "ключ"}, "key"),
        ({"certificate": b"x"}, "certificate"),
        ({"certificate_key": b"x"}, "certificate"),
        ({"ca": b"x", "plaintext": True}, "plaintext"),
    ],
    ids=str,
)
def test_contradictions_are_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Credentials(**given)
    assert caught.value.field == field


@pytest.mark.parametrize("pem", [b"", b"x", b"\xff", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
@pytest.mark.parametrize("field", ["ca", "certificate"])
def test_what_is_no_certificate_is_refused_by_name(field: str, pem: bytes) -> None:
    given: dict[str, Any] = {"ca": {"ca": pem}, "certificate": {"certificate": pem, "certificate_key": b"x"}}[field]
    with pytest.raises(InvalidArgument) as caught:
        Client("127.0.0.1:1", credentials=Credentials(**given))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "server", ["", "router", "router:", "router:http", "router:0", "router:65536", "http://router:1"]
)
def test_a_server_is_a_host_and_a_port(server: str) -> None:
    with pytest.raises(InvalidArgument, match="HOST:PORT") as caught:
        Client(server)
    assert caught.value.field == "server"


def test_a_key_is_not_shown() -> None:
    assert KEY not in repr(Credentials(KEY, b"ca", b"certificate", b"certificate-key"))
    assert b"certificate-key".decode() not in repr(Credentials(KEY, b"ca", b"certificate", b"certificate-key"))


@pytest.mark.parametrize(
    "server",
    ["127.0.0.1:1", "127.3.4.5:1", "localhost:1", "localhost", "[::1]:1", "dns:///localhost:1", "dns:localhost:1",
     "ipv4:127.0.0.1:1,127.0.0.2:1", "ipv6:[::1]:1", "unix:/run/router.sock", "unix-abstract:router"],
)  # fmt: skip
def test_loopback_is_known(server: str) -> None:
    assert is_loopback(server)
    assert ("grpc.enable_http_proxy", 0) in options(server)


@pytest.mark.parametrize(
    "server",
    ["router:1", "10.0.0.1:1", "0.0.0.0:1", "[::]:1", "127.0.0.1.example.com:1", "localhost.example.com:1",
     "ipv4:127.0.0.1:1,10.0.0.1:1", "dns://8.8.8.8/localhost:1", "dns:///router:1", "xds:///localhost:1", ""],
)  # fmt: skip
def test_nothing_else_is_taken_for_loopback(server: str) -> None:
    assert not is_loopback(server)
    assert not any(name == "grpc.enable_http_proxy" for name, _ in options(server))


def test_a_client_is_closed_by_its_context() -> None:
    with Client("127.0.0.1:1", timeout=1) as client:
        pass
    with pytest.raises(ValueError, match="closed"):
        client.decide("x")
