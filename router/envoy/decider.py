"""From the headers and the body of an HTTP request to what Envoy does with it: never without an answer, never late."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from router.admission.identity import Call
from router.admission.tenants import Tenants
from router.domain import Decision, RouteRequest
from router.envoy import replies
from router.envoy.budget_fields import CHAT, written
from router.envoy.gateway import Gateway
from router.envoy.replies import Headers
from router.errors import BackendUnavailable, InvalidRequest, PermissionDenied, RouterError
from router.events import GatewayAnswered
from router.openai.bodies import parsed
from router.openai.errors import FAILED, INVALID, Kind, Refusal, refusal, refused
from router.openai.fields import Fields
from router.openai.headers import decision_headers
from router.openai.requests import route_request
from router.openai.responses_requests import responses_request
from router.openai.wishes import PREFIX, seconds_left
from router.ports import Observer, Placing
from router.requests.limits import Limits
from router.routing.router import BudgetRouter
from router.routing.served_model import ServedModel

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of which the body is still to come, or has come with it.

    Attributes:
        headers: by lower-case name.
        held: Envoy still holds the headers, so that they can be changed.
        whole: the body is sure to be no mere beginning of one.
    """

    headers: Headers
    held: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the body of a request.

    Attributes:
        message: for Envoy.
        headers: what to say in the headers of the response; empty where nothing was decided.
    """

    message: bytes
    headers: Headers


class GatewayDecider:
    """Decides about requests of a gateway.

    Args:
        tenants: those that a gateway may name.
        observer: sees what became of every request.
        expect: learns of every decision, where its response will be read.
    """

    def __init__(
        self,
        router: BudgetRouter,
        tenants: Tenants,
        limits: Limits,
        gateway: Gateway,
        observer: Observer,
        expect: Callable[[RouteRequest, Decision], None] | None = None,
    ) -> None:
        self._expect = expect
        self._router = router
        self._tenants = tenants
        self._limits = limits
        self._gateway = gateway
        self._observer = observer
        self._paths = {path for engine in gateway.engines.values() for path in engine.paths}

    def decides(self, headers: Headers) -> bool:
        """True if a request with these headers has a budget, so that its body is wanted."""
        return headers.get(":method") == "POST" and _path(headers) in self._paths

    async def answer(self, asked: Asked, body: bytes, call: Call, *, whole: bool) -> Answer:
        """The answer to the body of a request.

        Args:
            whole: the body is not only the beginning of one.

        Raises:
            PermissionDenied: the gateway must not vouch for its callers.
        """
        tenant = self._tenant(asked.headers, call)
        if not whole:
            return self._failed("TooLarge", _TOO_LARGE)
        try:
            async with asyncio.timeout(self._gateway.seconds):
                answer = await self._decided(asked, body, tenant)
        except TimeoutError:
            return self._failed("Timeout", _LATE)
        except RouterError as error:
            return self._failed(type(error).__name__, refusal(error))
        self._observer(_DECIDED)
        return answer

    async def _decided(self, asked: Asked, body: bytes, tenant: str) -> Answer:
        _require_plain_json(asked.headers)
        given = parsed(body)
        request = self._request(given, asked.headers, tenant)
        served, destination = self._destined(request, held=asked.held)
        decision = await self._router.decide(replace(request, model=served.model))
        if self._expect is not None:
            self._expect(request, decision)
        fields = self._gateway.engines[served.model].of(decision, _path(asked.headers))
        said = {**decision_headers(decision), f"{PREFIX}enforcement": served.enforcement.value, **_unstopped(decision)}
        changed = written(body, given, fields, served.model)
        return Answer(replies.changed(changed, said, destination, held=asked.held), said)

    def _destined(self, request: RouteRequest, *, held: bool) -> tuple[ServedModel, Headers]:
        """The model that answers, and the header that names its engine, where the router chooses one.

        Raises:
            NotFound, BackendUnavailable: nobody can answer.
            InvalidRequest: the gateway can set no header any more.
        """
        candidates, header = self._router.candidates(request.model), self._gateway.destination_header
        if not header:
            return candidates[0], {}
        if not held:
            raise InvalidRequest("request_header_mode", "must be SEND where the router names the engine")
        for served in candidates:
            if isinstance(served.backend, Placing) and (place := served.backend.place(request.session)) is not None:
                return served, {header: place}
        raise BackendUnavailable("no engine can be asked")

    def _request(self, given: Any, headers: Headers, tenant: str) -> RouteRequest:
        """What to decide about. Raises InvalidRequest, PermissionDenied."""
        call = Call(tenant, seconds_left(headers))
        # The header of the tenant is the gateway's, which has been read.
        asked = {name: value for name, value in headers.items() if name != self._gateway.tenant_header}
        if _path(headers) == CHAT:
            request, _ = route_request(Fields(given), asked, self._limits, call)
        else:
            request = responses_request(given, asked, self._limits, call).chat.route
        if request.options.min_thinking_tokens:
            raise InvalidRequest("options.min_thinking_tokens", "no engine holds a floor by itself, behind a gateway")
        return request

    def _tenant(self, headers: Headers, call: Call) -> str:
        """The tenant of a request: the one that the gateway vouches for, else the gateway itself."""
        vouched = headers.get(self._gateway.tenant_header, "") if self._gateway.tenant_header else ""
        if not vouched or call.tenant is None:
            return vouched or call.on_behalf_of("")
        gateway = self._tenants.get(call.tenant)
        if gateway is None or not gateway.gateway:
            raise PermissionDenied("this tenant is no gateway, and vouches for nobody")
        return vouched

    def _failed(self, cause: str, error: Refusal) -> Answer:
        """The answer where nothing is decided: the request goes on as it came, or is refused."""
        self._observer(GatewayAnswered("failed_open" if self._gateway.open else "refused", cause))
        if self._gateway.open:
            return Answer(replies.BODY_PASS, {})
        return Answer(replies.refused(error.status, orjson.dumps(error.body), error.headers, cause), {})


_DECIDED = GatewayAnswered("decided", "")
_TOO_LARGE = refused(Kind(413, INVALID), "the body is larger than the gateway's buffer", "too_large")
_LATE = refused(Kind(503, FAILED, True), "the budget was not decided in time", "late")


def _path(headers: Headers) -> str:
    return headers.get(":path", "").partition("?")[0]


def _require_plain_json(headers: Headers) -> None:
    """Raises InvalidRequest where the body is not what is read here."""
    if headers.get("content-encoding", "identity") != "identity":
        raise InvalidRequest("content-encoding", "only bodies that are not compressed are read")
    if headers.get("content-type", JSON).partition(";")[0].strip().lower() != JSON:
        raise InvalidRequest("content-type", f"must be {JSON}")


def _unstopped(decision: Decision) -> Mapping[str, str]:
    """Where a rule would have stopped within the thought: it cannot behind a gateway, and the reason says so."""
    if not decision.choice.checkpoints:
        return {}
    reason = decision_headers(decision)[f"{PREFIX}reason"]
    return {f"{PREFIX}reason": f"{reason}; no rule stops within the thought behind a gateway"}
