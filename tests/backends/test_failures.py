"""Why an engine cannot be reached, in words."""

import pytest

from router.backends.http import EngineClient, Timeouts
from router.errors import BackendError, BackendUnavailable, BackendUnreachable
from tests.support.ports import free_port
from tests.support.simulators import simulated
from tests.support.sockets import Raw, listening


async def asked(url: str, timeouts: Timeouts | None = None) -> None:
    client = EngineClient(url, timeouts or Timeouts(), 1)
    try:
        await client.ask("/v1/models")
    finally:
        await client.close()


async def test_nothing_listens() -> None:
    with pytest.raises(BackendUnreachable, match="nothing listens at its port"):
        await asked(f"http://127.0.0.1:{free_port()}")


async def test_no_such_host() -> None:
    with pytest.raises(BackendUnreachable, match="the name of its host is not known"):
        await asked("http://nobody.invalid", Timeouts(connect=60.0, question=60.0))  # resolvers may be slow to say so


async def test_no_tls() -> None:
    async with simulated("vllm") as engine:
        with pytest.raises(BackendUnreachable, match="it does not speak TLS; is it http://"):
            await asked(engine.url.replace("http:", "https:"))


@pytest.mark.parametrize(
    ("sends", "kind", "said"),
    [(b"SSH-2.0-OpenSSH_9.6\r\n", BackendError, "not HTTP"), (b"", BackendUnavailable, "closed the connection")],
)
async def test_no_http(sends: bytes, kind: type[BackendError], said: str) -> None:
    async with listening(Raw(sends)) as engine:
        with pytest.raises(kind, match=said):
            await asked(engine.url)
