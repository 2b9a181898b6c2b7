"""Responses that a gateway shows without waiting: what was counted in them is recorded, as after Generate."""

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from router._gen import external_processor_pb2 as pb
from router.admission.identity import Call
from router.admission.tenants import Tenants
from router.backends.dialects import Dialect
from router.backends.http import Chunk
from router.backends.stream_state import StreamState
from router.domain import Completion, Decision, GenerationRequest, Prompt, RouteRequest, RoutingOptions
from router.envoy.attributes import decision_in
from router.envoy.messages import parsed_message
from router.envoy.tail import Tail
from router.errors import BackendError, OutcomeLogError, PermissionDenied
from router.events import GatewayShown
from router.ports import DecisionArchive, Observer
from router.routing.router import BudgetRouter
from router.rpc.boundary import Exchange

MOST = 10_000
"""Decisions whose responses may be under way; of more the oldest ones are forgotten."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A decision whose response is to come; `at` as `time.perf_counter`, None = it was made elsewhere."""

    request: RouteRequest
    decision: Decision
    at: float | None


class Watcher:
    """Reads the responses of requests that were decided about here, or at a process with the same outcome log.

    Args:
        archive: finds decisions of other processes.
        dialects: how the engine of each served model counts.
        observer: sees what became of every response.
    """

    def __init__(
        self,
        router: BudgetRouter,
        archive: DecisionArchive,
        tenants: Tenants,
        dialects: Mapping[str, Dialect],
        observer: Observer,
    ) -> None:
        self._router = router
        self._archive = archive
        self._tenants = tenants
        self._dialects = dialects
        self._observer = observer
        self._expected: OrderedDict[str, Expected] = OrderedDict()

    def expect(self, request: RouteRequest, decision: Decision) -> None:
        """Remember a decision until its response has been read; the texts of its request are not kept."""
        while len(self._expected) >= MOST:
            self._expected.popitem(last=False)
        shortened = replace(request, prompt=Prompt.of(""))
        self._expected[decision.id] = Expected(shortened, decision, time.perf_counter())

    async def watch(self, exchange: Exchange, first: pb.ProcessingRequest, call: Call) -> None:
        """Read a response to its end. Raises InvalidRequest, PermissionDenied."""
        began, tail, message = time.perf_counter(), Tail(), first
        if not (decision := decision_in(first)):  # nothing was decided
            self._observer(GatewayShown("unknown"))
            return
        tail.add(first.response_body.body)
        while not message.response_body.end_of_stream and (data := await exchange.read()) is not None:
            message, _ = parsed_message(data)
            tail.add(message.response_body.body)
        expected = self._expected.get(decision) or await self._found(decision)
        if expected is not None:
            self._require_own(expected.request.tenant, call)
            self._expected.pop(decision, None)
        self._observer(GatewayShown("unknown" if expected is None else self._ended(expected, tail.end(), began)))

    async def _found(self, decision: str) -> Expected | None:
        """A decision of another process; None where the log has none of that id, or says nothing."""
        try:
            logged = await self._archive.find(decision)
        except OutcomeLogError:
            return None
        if logged is None or logged.decision.model not in self._dialects:
            return None
        options = RoutingOptions(logged.decision.target)
        return Expected(
            RouteRequest(Prompt.of(""), options, logged.tenant, logged.decision.model), logged.decision, None
        )

    def _ended(self, expected: Expected, end: Chunk | None, began: float) -> str:
        """Record the end of a response; returns what became of it."""
        decision, at = expected.decision, expected.at
        try:
            completion = None if end is None else completed(end, decision, self._dialects[decision.model])
        except BackendError:  # it is not of the API's shape
            completion = None
        if completion is None:
            return "cut"
        seconds = None if at is None else (began - at, time.perf_counter() - at)
        self._router.completed(expected.request, decision, completion, seconds)
        return "no_usage" if completion.thinking_tokens is None else "counted"

    def _require_own(self, tenant: str, call: Call) -> None:
        """Raises PermissionDenied where the caller shows the response of another tenant, and is no gateway."""
        if call.tenant is None or call.tenant == tenant:
            return
        shows = self._tenants.get(call.tenant)
        if shows is None or not shows.gateway:
            raise PermissionDenied("this tenant is no gateway, and shows no responses of others")


def completed(end: Chunk, decision: Decision, dialect: Dialect) -> Completion:
    """The end of a generation by its last chunk, as of a stream that was read here. Raises BackendError.

    Thinking tokens are None where the engine has not reported them: nobody else has counted.
    """
    state = StreamState(dialect)
    state.read([end], None)
    return state.completion(GenerationRequest(Prompt.of(""), decision.rung))
