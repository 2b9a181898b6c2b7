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
from router.domain import Completion, Decision, GenerationRequest, Prompt, RouteRequest
from router.envoy.attributes import decision_told
from router.envoy.messages import parsed_message
from router.envoy.tail import Tail
from router.errors import BackendError, PermissionDenied
from router.events import GatewayShown
from router.ports import Observer
from router.routing.router import BudgetRouter
from router.rpc.boundary import Exchange

MOST = 10_000
"""Decisions whose responses may be under way; of more the oldest ones are forgotten."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A decision whose response is to come; `at` as `time.perf_counter`."""

    request: RouteRequest
    decision: Decision
    at: float


class Watcher:
    """Reads the responses of requests that were decided about here.

    Args:
        dialects: how the engine of each served model counts.
        observer: sees what became of every response.
    """

    def __init__(
        self, router: BudgetRouter, tenants: Tenants, dialects: Mapping[str, Dialect], observer: Observer
    ) -> None:
        self._router = router
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
        expected = self._expected.get(decision_told(first))
        if expected is None:  # nothing was decided, or elsewhere
            self._observer(GatewayShown("unknown"))
            return
        self._require_own(expected.request.tenant, call)
        began, tail, message = time.perf_counter(), Tail(), first
        tail.add(first.response_body.body)
        while not message.response_body.end_of_stream and (data := await exchange.read()) is not None:
            message, _ = parsed_message(data)
            tail.add(message.response_body.body)
        if self._expected.pop(expected.decision.id, None) is not None:  # once
            self._ended(expected, tail.end(), began)

    def _ended(self, expected: Expected, end: Chunk | None, began: float) -> None:
        decision = expected.decision
        try:
            completion = None if end is None else completed(end, decision, self._dialects[decision.model])
        except BackendError:  # it is not of the API's shape
            completion = None
        if completion is None:
            self._observer(GatewayShown("cut"))
            return
        seconds = (began - expected.at, time.perf_counter() - expected.at)
        self._router.completed(expected.request, decision, completion, *seconds)
        self._observer(GatewayShown("no_usage" if completion.thinking_tokens is None else "counted"))

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
