"""The blocking client; threads may share one."""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import grpc

from router.client import calls
from router.client.calls import Call
from router.client.connection import POLL_SECONDS, SERVER, Connection
from router.client.credentials import ANONYMOUS, Credentials
from router.client.errors import mapped_errors
from router.client.replies import Decision, Event, Explanation
from router.client.requests import DEFAULTS, LabelSource, Prompt, ResponseFormat, RoutingOptions, Sampling, Tool

R = TypeVar("R")


class Client:
    """Calls a service. Every call raises ClientError where it fails.

    Args:
        server: HOST:PORT, or any gRPC name such as dns:///HOST:PORT.
        timeout: seconds that a call may take. Default: 60; for `generate` 600, which the thinking must fit in.
        credentials: a key and certificates, where the service asks for them.
    """

    def __init__(
        self, server: str = SERVER, *, timeout: float | None = None, credentials: Credentials = ANONYMOUS
    ) -> None:
        self._connection = Connection(grpc, server, timeout, credentials)

    def decide(
        self,
        prompt: Prompt,
        *,
        options: RoutingOptions = DEFAULTS,
        model: str = "",
        tenant: str = "",
        timeout: float | None = None,
    ) -> Decision:
        """Choose a reasoning budget for a prompt, without running it."""
        return self._reply(calls.decide(prompt, options, model, tenant), timeout)

    def decide_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        options: RoutingOptions = DEFAULTS,
        model: str = "",
        tenant: str = "",
        timeout: float | None = None,
    ) -> tuple[Decision, ...]:
        """Choose for up to 1,024 prompts in one call, in their order. One bad prompt refuses all."""
        return self._reply(calls.decide_batch(prompts, options, model, tenant), timeout)

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
    ) -> Generator[Event, None, None]:
        """Choose, and stream the answer: a Decision, pieces of it, a Completion.

        With `show_checkpoints` a Checkpoint comes wherever a stopping rule looks at the answer. What `sampling` leaves
        out is the engine's own. The call starts with the first event; closing the stream cancels it.
        """
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

    def explain(
        self,
        prompt: Prompt | None = None,
        *,
        decision_id: str = "",
        options: RoutingOptions = DEFAULTS,
        model: str = "",
        tenant: str = "",
        timeout: float | None = None,
    ) -> Explanation:
        """Why a budget is chosen for a prompt, or was chosen by an earlier decision; one of them is needed."""
        return self._reply(calls.explain(prompt, decision_id, options, model, tenant), timeout)

    def report_outcome(
        self, decision_id: str, *, correct: float, label_source: LabelSource, timeout: float | None = None
    ) -> None:
        """Say how right (0..1) the answer to an earlier decision was, and who says so. The last report stands."""
        self._reply(calls.report_outcome(decision_id, correct, label_source), timeout)

    def is_ready(self, timeout: float | None = None) -> bool:
        """True if the service says that it answers calls. Raises Unavailable where nothing listens."""
        return self._reply(calls.check(), timeout)

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Return once the service answers calls. Raises DeadlineExceeded after `timeout` seconds."""
        ends = time.monotonic() + timeout
        # gRPC waits for a connection; the loop, for a service that has started but is NOT_SERVING yet. When the time is
        # up, the timeout is negative, and gRPC raises DEADLINE_EXCEEDED at once.
        while not self._reply(calls.check(), ends - time.monotonic(), wait=True):
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._connection.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reply(self, call: Call[R], timeout: float | None, wait: bool = False) -> R:
        with mapped_errors(self._connection.server):
            return call.read(self._connection.begin(call, timeout, wait))

    def _stream(self, call: Call[R | None], timeout: float | None) -> Generator[R, None, None]:
        with mapped_errors(self._connection.server):
            messages = self._connection.begin(call, timeout)
            try:
                for message in messages:
                    if (event := call.read(message)) is not None:
                        yield event
            finally:
                messages.cancel()  # for the caller who stops early; the backend stops thinking then
