"""TLS: who is let in by certificate, and that renewed files count without a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc

from router._gen import budget_router_pb2_grpc as pb_grpc
from router.admission.tenants import Tenant, Tenants
from router.errors import SettingsError
from router.routing.explain import Explainer
from router.rpc.boundary import Boundary
from router.rpc.identity import TenantGuard
from router.rpc.server import RouterServer
from router.rpc.server import Service as Routed
from router.rpc.servicer import BudgetRouterServicer
from router.rpc.tls import Certificates, TlsFiles
from tests.rpc.conftest import PATIENCE, decide, refusal
from tests.support.fakes import LIMITS, ListLog, RecordingObserver, router_of
from tests.support.ports import free_port

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

TENANTS = Tenants({"one": Tenant(certificates=frozenset({"one.example.com"}))})


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs."""
    return trustme.CA()


def issued(authority: trustme.CA, directory: Path, name: str = "localhost", **files: Path) -> TlsFiles:
    """A certificate for a name, as files."""
    made = authority.issue_cert(name)
    made.cert_chain_pems[0].write_to_path(directory / "server.pem")
    made.private_key_pem.write_to_path(directory / "server.key")
    return TlsFiles(directory / "server.pem", directory / "server.key", **files)


@asynccontextmanager
async def secured(certificates: Certificates, tenants: Tenants) -> AsyncIterator[str]:
    """A server with TLS; its address."""
    router = router_of(tenants=("default", "one"))
    servicer = BudgetRouterServicer(router, Explainer(router, ListLog()), LIMITS)
    boundary = Boundary(TenantGuard(tenants), 10, RecordingObserver())
    credentials = certificates.credentials()
    server = RouterServer(Routed.routing(servicer), boundary, "127.0.0.1:0", credentials, router.health)
    await server.start()
    try:
        yield f"localhost:{server.port}"
    finally:
        await server.drain(0)


async def asked(address: str, authority: trustme.CA, client: trustme.LeafCert | None = None) -> str:
    """The rung that a new connection is told, or the status."""
    key = None if client is None else client.private_key_pem.bytes()
    chain = None if client is None else client.cert_chain_pems[0].bytes()
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        stub: Any = pb_grpc.BudgetRouterServiceStub(channel)
        try:
            return str((await stub.Decide(decide(), timeout=10)).decision.rung)
        except grpc.aio.AioRpcError as error:
            return error.code().name


async def test_calls_are_encrypted_and_plain_ones_fail(authority: trustme.CA, tmp_path: Path) -> None:
    async with secured(Certificates(issued(authority, tmp_path)), Tenants({})) as address:
        assert (await asked(address, authority)).isdigit()
        assert await asked(address, trustme.CA()) == "UNAVAILABLE"
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = pb_grpc.BudgetRouterServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Decide(decide(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_client_certificates_stand_for_tenants(authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = issued(authority, tmp_path, client_ca=tmp_path / "ca.pem")
    async with secured(Certificates(files), TENANTS) as address:
        assert (await asked(address, authority, authority.issue_cert("one.example.com"))).isdigit()
        assert await asked(address, authority, authority.issue_cert("other.example.com")) == "UNAUTHENTICATED"
        assert await asked(address, authority, trustme.CA().issue_cert("one.example.com")) == "UNAVAILABLE"
        assert await asked(address, authority) == "UNAVAILABLE"


async def test_renewed_certificates_count_from_the_next_connection_on(authority: trustme.CA, tmp_path: Path) -> None:
    other = trustme.CA()
    certificates = Certificates(issued(authority, tmp_path))
    async with secured(certificates, Tenants({})) as address:
        assert (await asked(address, authority)).isdigit()
        issued(other, tmp_path)
        await certificates.reload()
        assert (await asked(address, other)).isdigit()
        assert await asked(address, authority) == "UNAVAILABLE"
        (tmp_path / "server.key").write_text("half of a ke")
        with pytest.raises(SettingsError, match="TLS files") as caught:
            await certificates.reload()
        assert "half" not in str(caught.value)
        assert (await asked(address, other)).isdigit(), "the last good ones count"


@pytest.mark.parametrize("spoilt", ["server.pem", "server.key"])
def test_files_that_are_unusable_at_the_start_are_refused(authority: trustme.CA, tmp_path: Path, spoilt: str) -> None:
    files = issued(authority, tmp_path)
    (tmp_path / spoilt).write_text("nonsense")
    with pytest.raises(SettingsError, match="TLS files"):
        Certificates(files)
    (tmp_path / spoilt).unlink()
    with pytest.raises(SettingsError, match="TLS files"):
        Certificates(files)


def test_a_key_that_needs_a_passphrase_is_refused_and_nobody_is_asked_for_it(
    authority: trustme.CA, tmp_path: Path
) -> None:
    files = issued(authority, tmp_path)
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"a passphrase")
    kind = serialization.PrivateFormat.TraditionalOpenSSL
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, locked))
    with pytest.raises(SettingsError, match="TLS files"):
        Certificates(files)


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_an_authority_that_is_none_is_refused(authority: trustme.CA, tmp_path: Path, text: str) -> None:
    (ca := tmp_path / "ca.pem").write_text(text)
    with pytest.raises(SettingsError, match="TLS files"):
        Certificates(issued(authority, tmp_path, client_ca=ca))


async def test_probes_without_tls_see_the_health_and_nothing_else(authority: trustme.CA, tmp_path: Path) -> None:
    """Kubernetes' gRPC probe speaks no TLS, and shows no certificate where the service asks for one."""
    works = {"": True}

    async def health() -> dict[str, bool]:
        return works

    router, probes = router_of(), f"127.0.0.1:{free_port()}"
    boundary = Boundary(TenantGuard(Tenants({})), 10, RecordingObserver())
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = issued(authority, tmp_path, client_ca=tmp_path / "ca.pem")
    routing = Routed.routing(BudgetRouterServicer(router, Explainer(router, ListLog()), LIMITS))
    credentials = Certificates(files).credentials()
    server = RouterServer(routing, boundary, "127.0.0.1:0", credentials, health, probes=probes)
    await server.start()
    watching = asyncio.create_task(server.watch_health(0.01))
    async with grpc.aio.insecure_channel(probes) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        service: Any = pb_grpc.BudgetRouterServiceStub(channel)

        async def seen(name: str) -> int:
            return int((await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)).status)

        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert (await watch.read()).status == await seen("live") == SERVING
        works = {"": False}
        assert (await watch.read()).status == NOT_SERVING
        assert [await seen(name) for name in ("", "live")] == [NOT_SERVING, SERVING]
        assert (await refusal(service.Decide(decide()))).code is grpc.StatusCode.UNIMPLEMENTED
        await server.drain(0)
        assert (await refusal(stub.Check(health_pb2.HealthCheckRequest()))).code is grpc.StatusCode.UNAVAILABLE
    watching.cancel()
