"""One service with every way in: gRPC, the OpenAI API, and external processing for a gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.engine_bundle import bundle_about
from router import settings
from router.serving.app import Ports, running
from tests.support.fakes import at_once


@asynccontextmanager
async def open_every_way(url: str, model: str, own: Path, seconds: float) -> AsyncIterator[Ports]:
    """The ports of a service in front of a vLLM, with a copy of the shipped bundle that is about it.

    Args:
        own: a directory for the copy and the outcome log.
        seconds: a gateway waits so long for a decision.
    """
    loaded = settings.load(
        listen="127.0.0.1:0",
        http_listen="127.0.0.1:0",
        envoy=True,
        envoy_seconds=seconds,
        backend="vllm",
        backend_url=url,
        backend_model=model,
        artifact=await bundle_about(url, model, own / "bundle"),
        outcomes=own / "outcomes.sqlite",
    )
    async with running(loaded, at_once) as ports:
        yield ports
