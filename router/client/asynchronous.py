"""The client for asyncio: `Client`, awaited. One belongs to the event loop that it is made in."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import grpc.aio

from router.client import calls
from router.client.calls import Call
from router.client.connection import POLL_SECONDS, SERVER, Connection
from router.client.credentials import ANONYMOUS, Credentials
from router.client.errors import mapped_errors
from router.client.replies import Decision, Event, Explanation
from router.client.requests import DEFAULTS, LabelSource, Prompt, ResponseFormat, RoutingOptions, Sampling, Tool

R = TypeVar("R")


class AsyncClient:
    """Calls a service. Every call raises ClientError where it fails.

    Args:
        server: HOST:PORT, or any gRPC name such as dns:///HOST:PORT.
        timeout: seconds that a call may take. Default: 60; for `generate` 600, which the thinking must fit in.
        credentials: a key and certificates, where the service asks for them.
    """

    def __init__(
        self, server: str = SERVER, *, timeout: float | None = None, credentials: Credentials = ANONYMOUS
    ) -> None:
        self._connection = Connection(grpc.aio, server, timeout, credentials)

    async def decide(
        self,
        prompt: Prompt,
        *,
        options: RoutingOptions = DEFAULTS,
        model: str = "",
        tenant: str = "",
        timeout: float | None = None,
    ) -> Decision:
        """As `Client.decide`."""
        return await self._reply(calls.decide(prompt, options, model, tenant), timeout)

    async def decide_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        options: RoutingOptions = DEFAULTS,
        model: str = "",
        tenant: str = "",
        timeout: float | None = None,
    ) -> tuple[Decision, ...]:
        """As `Client.decide_batch`."""
        return await self._reply(calls.decide_batch(prompts, options, model, tenant), timeout)

    def generate(
        self,
        prompt: Prompt,
        *,
        options: RoutingOptions = DEFAULTS,
        model: str = "",
        tenant: str = "",
        tools: Sequence[Tool | Mapping[str, Any]] = (),
        tool_choice: str = "",
        parallel_tool_calls: bool | None = None,
        show_checkpoints: bool = False,
        response_format: ResponseFormat | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncGenerator[Event, None]:
        """As `Client.generate`, for `async for`."""
        call = calls.generate(
            prompt,
            options,
            model,
            tenant,
            tools,
            tool_choice,
            show_checkpoints,
            parallel_tool_calls,
            response_format,
            **sampling,
        )
        return self._stream(call, timeout)

    async def explain(
        self,
        prompt: Prompt | None = None,
        *,
        decision_id: str = "",
        options: RoutingOptions = DEFAULTS,
        model: str = "",
        tenant: str = "",
        timeout: float | None = None,
    ) -> Explanation:
        """As `Client.explain`."""
        return await self._reply(calls.explain(prompt, decision_id, options, model, tenant), timeout)

    async def report_outcome(
        self,
        decision_id: str,
        *,
        correct: float,
        label_source: LabelSource,
        timeout: float | None = None,
    ) -> None:
        """As `Client.report_outcome`."""
        await self._reply(calls.report_outcome(decision_id, correct, label_source), timeout)

    async def is_ready(self, timeout: float | None = None) -> bool:
        """As `Client.is_ready`."""
        return await self._reply(calls.check(), timeout)

    async def wait_until_ready(self, timeout: float = 30.0) -> None:
        """As `Client.wait_until_ready`."""
        ends = time.monotonic() + timeout
        while not await self._reply(calls.check(), ends - time.monotonic(), wait=True):
            await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._connection.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _reply(self, call: Call[R], timeout: float | None, wait: bool = False) -> R:
        with mapped_errors(self._connection.server):
            return call.read(await self._connection.begin(call, timeout, wait))

    async def _stream(self, call: Call[R | None], timeout: float | None) -> AsyncGenerator[R, None]:
        with mapped_errors(self._connection.server):
            messages = self._connection.begin(call, timeout)
            try:
                async for message in messages:
                    if (event := call.read(message)) is not None:
                        yield event
            finally:
                messages.cancel()  # for the caller who stops early; the backend stops thinking then
