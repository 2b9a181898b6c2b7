"""The routing service: convert, delegate, convert."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from router._gen import budget_router_pb2 as pb
from router.admission.identity import Call
from router.domain import Checkpoint, Completion, Decision, ServedEvent
from router.requests.limits import Limits
from router.routing.explain import Explainer
from router.routing.router import BudgetRouter
from router.rpc import decisions, requests, responses, sampling
from router.rpc.parsing import parser
from router.rpc.repeats import Repeats
from router.window import Window

WIRE = frozenset({"Decide"})
"""Methods that take their requests as bytes."""

Write = Callable[[bytes], Awaitable[None]]
"""Sends a message of a stream, but for its last. Raises CancelledError, InternalError where the caller has left."""


class BudgetRouterServicer:
    """Answers `BudgetRouterService`, a method each; errors become statuses at the boundary."""

    def __init__(self, router: BudgetRouter, explainer: Explainer, limits: Limits, window_seconds: float = 0.0) -> None:
        self._router = router
        self._explainer = explainer
        self._limits = limits
        self._read = parser(pb.DESCRIPTOR.message_types_by_name["DecideRequest"])
        self._repeats = Repeats(router.decider)
        self._window_seconds = window_seconds

    async def Decide(self, data: bytes, call: Call) -> bytes:
        """Choose a reasoning budget for one prompt: a request and its reply on the wire."""
        key, circumstances = self._repeats.key(data, call), self._router.decider.circumstances
        if (reply := self._repeats.reply(key, circumstances, data)) is not None:
            return reply
        request = requests.route_request(await self._read(data), self._limits, call)
        decided = await self._router.decide(request)
        reply = decisions.reply(decided)
        self._repeats.remember(key, circumstances, request, decided, reply)
        return reply

    async def DecideBatch(self, request: pb.DecideBatchRequest, call: Call) -> bytes:
        """Choose a reasoning budget for each of many prompts; the reply is on the wire already."""
        decided = await self._router.decide_batch(await requests.batch(request, self._limits, call))
        return await decisions.batch(decided)

    async def Generate(self, request: pb.GenerateRequest, call: Call, write: Write) -> bytes:
        """Choose a budget, forward the prompt to the engine, and stream its answer back, but for the completion.

        Returns the completion, on the wire: it leaves with the status, once the generation's place is free again.
        """
        # Only here does the call's deadline bound the budget: the other methods do not wait for any thinking.
        routed = requests.route_request(request, self._limits, call, call.remaining)
        drawn, tools = sampling.sampling(request), await requests.tools(request, self._limits)
        show_checkpoints = request.show_checkpoints
        del request  # a stream lasts for minutes, and images are long
        last = b""

        async def send(event: Decision | ServedEvent) -> None:
            await write(responses.event(event))

        async with (
            Window(self._window_seconds, send) as window,
            aclosing(self._router.generate(routed, drawn, tools)) as events,
        ):
            async for event in events:
                if type(event) is Completion:
                    last = responses.event(event)
                elif show_checkpoints or type(event) is not Checkpoint:
                    await window.take(event)
        return last

    async def ReportOutcome(self, request: pb.ReportOutcomeRequest, call: Call) -> pb.ReportOutcomeResponse:
        """Attach an outcome to an earlier decision."""
        await self._router.report(requests.outcome(request, call.tenant))
        return pb.ReportOutcomeResponse()

    async def Explain(self, request: pb.ExplainRequest, call: Call) -> pb.ExplainResponse:
        """Explain why a budget was chosen."""
        subject = requests.explained(request, self._limits, call)
        if isinstance(subject, str):
            decided, sentences = await self._explainer.decided(subject, call.on_behalf_of(request.tenant))
        else:
            decided, sentences = await self._explainer.request(subject)
        return pb.ExplainResponse(decision=decisions.decision(decided), sentences=sentences)
