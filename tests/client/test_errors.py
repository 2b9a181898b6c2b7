"""Statuses become exceptions that say what, where and when again."""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import grpc
import pytest
import trustme

from router import client as package
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.bundle.manifest import Bundle
from router.client import ClientError, Credentials, ResourceExhausted, Unavailable
from router.client.errors import KINDS
from router.errors import BackendUnavailable, OutcomeLogError, OutcomeLogHangs, Overloaded, RouterError
from router.rpc.status import to_status
from tests.client.conftest import CLIENTS, connected, streamed
from tests.rpc.conftest import serving
from tests.support.fakes import router_of
from tests.support.ports import free_port


class Refusing(pb_grpc.BudgetRouterServiceServicer):
    """Answers every call with one status."""

    def __init__(self, status: Any) -> None:
        self.status = status
        self.calls = 0

    async def Decide(self, request: Any, context: Any) -> None:
        self.calls += 1
        if isinstance(self.status, grpc.StatusCode):
            await context.abort(self.status, "said")
        await context.abort_with_status(self.status)


@asynccontextmanager
async def refusing(status: Any) -> AsyncIterator[str]:
    """The address of a service that refuses everything."""
    async with refusing_with(Refusing(status)) as address:
        yield address


@asynccontextmanager
async def refusing_with(servicer: Refusing) -> AsyncIterator[str]:
    """The address of a service that refuses everything so."""
    server = grpc.aio.server()
    pb_grpc.add_BudgetRouterServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_call_that_has_waited_for_a_log_that_hangs_is_not_tried_again(kind: str) -> None:
    for error, tried in ((OutcomeLogHangs("locked"), {1}), (OutcomeLogError("failed"), {2, 3, 4})):
        servicer = Refusing(to_status(error))
        async with refusing_with(servicer) as address, connected(kind, address, timeout=30) as client:
            with pytest.raises(Unavailable):
                await client.decide("x")
        assert servicer.calls in tried


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"], ids=lambda code: code.name)
async def test_each_status_is_an_error_of_its_own_or_the_general_one(kind: str, code: grpc.StatusCode) -> None:
    async with refusing(code) as address, connected(kind, address, timeout=30) as client:
        with pytest.raises(ClientError) as caught:
            await client.decide("x")
    assert caught.value.code == code.name
    assert type(caught.value) is KINDS.get(code.name, ClientError)
    assert (caught.value.field, caught.value.retry_after) == (None, None)
    assert isinstance(caught.value, RouterError)


def test_every_kind_can_be_imported_and_knows_its_code() -> None:
    for code, kind in KINDS.items():
        assert getattr(package, kind.__name__) is kind
        assert kind.__name__.lower() == code.replace("_", "").lower()
        assert kind("x").code == code


@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_overloaded_service_says_when_again(kind: str) -> None:
    overloaded = to_status(Overloaded("quota", "spent", retry_after=7.5))
    async with refusing(overloaded) as address, connected(kind, address, timeout=30) as client:
        with pytest.raises(ResourceExhausted, match=r"^spent$") as caught:
            await client.decide("x")
    assert caught.value.retry_after == 7.5


async def test_a_backend_that_refuses_connections_is_not_taken_for_a_missing_service() -> None:
    down = to_status(BackendUnavailable("engine: Connection refused"))
    async with refusing(down) as address, connected("blocking", address, timeout=30) as client:
        with pytest.raises(Unavailable, match=r"^engine: Connection refused$"):
            await client.decide("x")


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_stream_is_refused_alike(bundle: Bundle, kind: str) -> None:
    async with serving(router_of(), bundle, max_calls=0) as service, connected(kind, service.address) as client:
        with pytest.raises(ResourceExhausted) as caught:
            await streamed(client, "x")
    assert caught.value.retry_after == 1


@asynccontextmanager
async def listening(credentials: grpc.ServerCredentials | None) -> AsyncIterator[int]:
    """The port of a gRPC server without methods, in plaintext or with TLS."""
    server, any_ = grpc.aio.server(), "localhost:0"
    port = server.add_insecure_port(any_) if credentials is None else server.add_secure_port(any_, credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def web_page() -> AsyncIterator[int]:
    """A server that answers everything as HTTP/1 does."""
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        yield port


@asynccontextmanager
async def answering(words: bytes, reset: bool = False) -> AsyncIterator[int]:
    """The port of a server on 127.0.0.1 alone that says the same to everyone, and then closes the connection."""

    class Saying(BaseRequestHandler):
        def handle(self) -> None:
            if reset:
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif words:
                with suppress(OSError):  # the client may leave first
                    self.request.sendall(words)
                    self.request.shutdown(socket.SHUT_WR)
                    # What is not read when a connection is closed resets it.
                    while self.request.recv(1 << 16):
                        pass

    with ThreadingTCPServer(("127.0.0.1", 0), Saying) as server:
        accepting = Thread(target=server.serve_forever, args=(0.02,))
        accepting.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            accepting.join()


OTHERS = {
    "web page": (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
    "SSH": (b"SSH-2.0-OpenSSH_9\r\n", False),
    "Redis": (b"-ERR unknown command 'PRI'\r\n", False),
    "TLS alert": (b"\x15\x03\x01\x00\x02\x02\x46", False),
    "closes": (b"", False),
    "resets": (b"", True),
}
"""Servers that are none of ours: what they say, and whether they reset connections."""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_another_server_is_not_taken_for_none(host: str) -> None:
    async def said(words: bytes, reset: bool) -> str:
        async with answering(words, reset) as port, connected("asyncio", f"{host}:{port}", timeout=60) as client:
            with pytest.raises(Unavailable) as caught:
                await client.decide("x")
        return str(caught.value).replace(str(port), "")

    for name, error in zip(OTHERS, await asyncio.gather(*(said(*other) for other in OTHERS.values())), strict=True):
        assert re.match(f"{host}: .*not speak gRPC$", error), (name, error)


async def test_a_port_of_localhost_where_nobody_listens_has_no_service() -> None:
    server = f"localhost:{free_port()}"
    async with connected("asyncio", server, timeout=60) as client:
        with pytest.raises(Unavailable, match=f"^no service at {server}; start one with `budget-router serve`$"):
            await client.decide("x")


async def test_a_connection_that_fails_is_put_plainly() -> None:
    authority, other = trustme.CA(), trustme.CA()
    made, foreign, ca = authority.issue_cert("localhost"), other.issue_cert("x"), authority.cert_pem.bytes()
    pair = made.private_key_pem.bytes(), made.cert_chain_pems[0].bytes()
    tls, both = grpc.ssl_server_credentials([pair]), grpc.ssl_server_credentials([pair], ca, require_client_auth=True)
    unfit = Credentials(ca=ca, certificate=foreign.cert_chain_pems[0].bytes(), certificate_key=pair[0])

    async def fails(server: AbstractAsyncContextManager[int], credentials: Credentials, said: str) -> None:
        async with server as port, connected("asyncio", f"localhost:{port}", credentials=credentials) as client:
            with pytest.raises(Unavailable, match=said) as caught:
                await client.decide("x", timeout=60)
            assert "\n" not in str(caught.value)

    await asyncio.gather(
        fails(listening(tls), Credentials(), "may want TLS"),
        fails(listening(both), Credentials(ca=ca), "a client certificate"),
        fails(listening(both), unfit, "do not fit together"),
        fails(listening(tls), Credentials(ca=other.cert_pem.bytes()), "signed by nobody"),
        fails(listening(None), Credentials(ca=ca), "does not speak TLS"),
        fails(web_page(), Credentials(), "not speak gRPC"),
    )


@pytest.mark.parametrize("server", ["nowhere.invalid:1", "unix:/nowhere"])
async def test_an_address_where_nothing_can_be_is_put_plainly(server: str) -> None:
    async with connected("asyncio", server, timeout=60) as client:
        with pytest.raises(Unavailable, match=f"^no service at {server}"):
            await client.decide("x")
