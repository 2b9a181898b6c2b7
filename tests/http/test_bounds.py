"""What a caller may cost: sizes, places, connections, and the time that is waited for it."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import trustme
from aiohttp import web
from structlog.testing import capture_logs

from router.admission.tenants import Key, Tenant, Tenants, digest
from router.domain import ContentDelta, ReasoningDelta
from router.events import CallCompleted
from router.http import connection, streaming
from router.http.server import HttpServer
from router.rpc.tls import Certificates
from tests.http.conftest import CHAT, QUESTION, Front, fronting
from tests.rpc.test_tls import issued
from tests.support.fakes import FakeBackend, Hang, completion_of, router_of, until

JSON = "application/json"
BODY = orjson.dumps({"messages": QUESTION})
CLOSED = Tenants({"one": Tenant(keys=(Key(sha256=digest("open")),))})


async def sent(front: Front, *pieces: bytes, pause: float = 0.0) -> bytes:
    """All that comes back over a connection that sends these pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.server.port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(pause)
    answer = await asyncio.wait_for(reader.read(1 << 20), 30)
    writer.close()
    return answer


def head(*lines: str, path: str = CHAT, size: int = len(BODY)) -> bytes:
    """The head of a request with these headers, too."""
    named = ["Host: x", f"Content-Type: {JSON}", f"Content-Length: {size}", *lines]
    return "\r\n".join([f"POST {path} HTTP/1.1", *named, "", ""]).encode()


async def test_requests_that_are_none_are_refused_with_a_status(fake: Front) -> None:
    async def status(method: str = "POST", path: str = CHAT, **options: Any) -> tuple[int, str]:
        async with fake.session.request(method, fake.url + path, **options) as response:
            return response.status, (await response.json())["error"]["code"]

    json = {"Content-Type": JSON}
    assert await status(path="/v1/nothing") == (404, "not_found")
    assert await status("GET") == (405, "method_not_allowed")
    assert await status("GET", path="/v1/models/nothing") == (404, "model_not_found")
    assert await status(data=BODY, headers={"Content-Type": "text/plain"}) == (415, "unsupported_media_type")
    squeezed = {**json, "Content-Encoding": "gzip"}
    assert await status(data=gzip.compress(BODY), headers=squeezed) == (415, "unsupported_encoding")
    assert await status(data=b"{", headers=json) == (400, "invalid_request")
    assert await status(data=b"", headers=json) == (400, "invalid_request")
    assert await status(data=b"[" * 100_000, headers=json) == (400, "invalid_request")
    twice = [("Content-Type", JSON), ("x-budget-router-rung", "16"), ("x-budget-router-rung", "32")]
    assert await status(data=BODY, headers=twice) == (400, "invalid_request")
    assert {record.code for record in fake.observer.of(CallCompleted)} == {
        "NOT_FOUND",
        "UNIMPLEMENTED",
        "INVALID_ARGUMENT",
    }


@pytest.mark.parametrize(
    "request_",
    [
        b"FOO /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET /v1/models HTTP/1.9\r\nHost: x\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        head("X-A : secret"),
        head("X-A: secret\x00"),
        head(f"Content-Length: {len(BODY)}"),
        head("Transfer-Encoding: chunked"),
        head("X-Long: " + 9_000 * "x"),
    ],
)
async def test_what_is_no_http_is_answered_in_json_too(fake: Front, request_: bytes) -> None:
    answer = await sent(fake, request_)
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 " in top.splitlines()[0] and b"Server: budget-router\r\n" in top
    error = orjson.loads(body)["error"]
    assert error["code"] == "invalid_http" and error["type"] == "invalid_request_error"
    assert "Python" not in top.decode() and "secret" not in error["message"] and "xxx" not in error["message"]


@pytest.mark.parametrize(("error", "status"), [(ValueError("a secret"), 500), (TimeoutError(), 504)])
async def test_what_escapes_a_handler_is_logged_and_no_fault_of_the_request(error: Exception, status: int) -> None:
    async with failing(error) as url, aiohttp.ClientSession() as session:
        with capture_logs() as lines:
            async with session.get(url) as response:
                body = await response.text()
    assert response.status == status and "secret" not in body and "invalid_http" not in body
    assert [line["exc_info"] for line in lines if line["event"] == "unexpected"] == ([error] if status == 500 else [])


async def test_a_caller_who_leaves_is_no_line_in_the_log() -> None:
    async with failing(ConnectionResetError()) as url, aiohttp.ClientSession() as session:
        with capture_logs() as lines, pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get(url)
    assert not lines


@asynccontextmanager
async def failing(error: Exception) -> AsyncIterator[str]:
    """A server whose handler fails."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        raise error

    server = HttpServer(handler, "127.0.0.1:0", None, 10)
    await server.start()
    yield f"http://127.0.0.1:{server.port}/"
    await server.drain(0)


async def test_bodies_are_bounded_with_a_length_and_without() -> None:
    async with fronting(router_of(), max_bytes=1_000) as front:
        assert (await front.post(messages=[{"role": "user", "content": "x" * 900}]))[0] == 200
        assert (await front.post(messages=[{"role": "user", "content": "x" * 1_000}]))[0] == 413

        async def endless() -> Any:
            while True:
                yield b" " * 100

        try:
            async with front.session.post(front.url + CHAT, data=endless(), headers={"Content-Type": JSON}) as response:
                assert response.status == 413
        except aiohttp.ClientConnectionError:
            pass  # the server had closed before the client looked at the answer


async def test_heads_of_what_can_be_got(fake: Front) -> None:
    for path in ("/v1/models", "/v1/models/auto", "/health"):
        async with fake.session.get(fake.url + path) as whole, fake.session.head(fake.url + path) as response:
            assert response.status == 200 and await response.read() == b""
            assert response.headers["Content-Length"] == whole.headers["Content-Length"]
    async with fake.session.options(fake.url + "/v1/models") as response:
        assert response.status == 405 and response.headers["Allow"] == "GET, HEAD"


async def test_credentials_come_before_bodies() -> None:
    async with fronting(router_of(tenants=("default", "one")), tenants=CLOSED) as front:
        large = head("Connection: close", size=1 << 20)
        assert b" 401 " in (await sent(front, large)).splitlines()[0], "nothing of the body was waited for"
        answer = await sent(front, head("Expect: 100-continue", "Connection: close"), BODY)
        assert answer.startswith(b"HTTP/1.1 401")
        told = ("Authorization: Bearer open", "Expect: 100-continue", "Connection: close")
        answer = await sent(front, head(*told), BODY, pause=0.05)
        assert answer.startswith(b"HTTP/1.1 100 Continue") and b"HTTP/1.1 200" in answer


async def test_headers_are_few_and_short(fake: Front) -> None:
    close = "Connection: close"
    assert b" 400 " in (await sent(fake, head(f"X-Long: {'x' * 9_000}", close), BODY)).splitlines()[0]
    many = [f"X-{number}: 1" for number in range(200)]
    assert b" 400 " in (await sent(fake, head(*many, close), BODY)).splitlines()[0]
    assert b" 200 " in (await sent(fake, head(close), BODY)).splitlines()[0]


async def test_a_body_that_does_not_arrive_is_given_up(fake: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.admission.read_queue.MESSAGE_SECONDS", 0.05)
    answer = await sent(fake, head("Connection: close"), BODY[:5])
    assert answer.startswith(b"HTTP/1.1 400") and b"did not arrive" in answer


async def test_a_connection_that_sends_no_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.05)
    async with fronting(router_of()) as front:
        assert await sent(front) == b""
        assert await sent(front, b"POST /v1/chat") == b""


async def test_connections_are_bounded() -> None:
    async with fronting(router_of(backend=FakeBackend([Hang()])), max_calls=1) as front:
        idle = [await asyncio.open_connection("127.0.0.1", front.server.port) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionError):
            while not await sent(front, head("Connection: close"), BODY):
                raise ConnectionResetError
        for _, writer in idle:
            writer.close()


async def test_calls_share_their_places_with_the_other_ways_in(backend: FakeBackend) -> None:
    async with fronting(router_of(backend=backend), max_calls=1) as front:
        with front.places.held(None, 0):  # a call by gRPC
            async with front.session.post(front.url + CHAT, json={"messages": QUESTION}) as response:
                assert response.status == 429 and response.headers["Retry-After"] == "1"
        assert (await front.post())[0] == 200
        front.places.drain()
        assert (await front.post())[0] == 503


async def test_a_slow_reader_is_waited_for_and_one_that_reads_nothing_is_left(
    backend: FakeBackend, fake: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "READ_SECONDS", 0.2)
    piece = ReasoningDelta("x" * 100_000)
    backend._scripts[:] = [[piece] * 1_000 + [ContentDelta("4"), completion_of()]]
    _, writer = await asyncio.open_connection("127.0.0.1", fake.server.port)
    body = orjson.dumps({"messages": QUESTION, "stream": True})
    writer.write(head(size=len(body)) + body)
    await until(lambda: backend.cancelled)
    assert backend.ended == 0, "the engine is held back, and then let go"
    await until(lambda: fake.observer.of(CallCompleted))
    assert fake.observer.of(CallCompleted)[0].code == "CANCELLED"
    writer.close()


async def test_a_drain_lets_calls_end_and_begins_none(backend: FakeBackend) -> None:
    backend._scripts[:] = [[ReasoningDelta("Hm."), ContentDelta("4"), completion_of()]]
    backend._delay = 0.05
    async with fronting(router_of(backend=backend)) as front:
        call = asyncio.create_task(front.post())
        await until(lambda: backend.open)
        await front.server.drain(30)
        assert (await call)[0] == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await front.post()


async def test_a_drain_ends_what_does_not_end_by_itself(backend: FakeBackend) -> None:
    backend._scripts[:] = [[ReasoningDelta("Hm."), Hang()]]
    async with fronting(router_of(backend=backend)) as front:
        call = asyncio.create_task(front.post())
        await until(lambda: backend.open)
        await front.server.drain(0)
        with pytest.raises(aiohttp.ClientConnectionError):
            await call
    assert backend.cancelled == 1


async def test_tls_and_certificates_that_are_renewed(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificates = Certificates(issued(authority, tmp_path, client_ca=tmp_path / "ca.pem"))
    tenants = Tenants({"one": Tenant(certificates=frozenset({"one.example.com"}))})

    def trusting(ca: trustme.CA, name: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        authority.issue_cert(name).configure_cert(context)
        return context

    async with fronting(router_of(tenants=("default", "one")), tenants=tenants) as front:
        secure = HttpServer(front.server._handler, "127.0.0.1:0", certificates.context(), 10)
        await secure.start()

        async def asked(context: ssl.SSLContext) -> int:
            url = f"https://localhost:{secure.port}{CHAT}"
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, json={"messages": QUESTION}, ssl=context) as response,
            ):
                return response.status

        assert await asked(trusting(authority, "one.example.com")) == 200
        assert await asked(trusting(authority, "other.example.com")) == 401
        issued(other, tmp_path)
        await certificates.reload()
        assert await asked(trusting(other, "one.example.com")) == 200
        with pytest.raises(aiohttp.ClientSSLError):
            await asked(trusting(authority, "one.example.com"))
        await secure.drain(0)
