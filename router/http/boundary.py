"""The boundary around every request: identifies the caller, bounds what is under way, and turns errors into statuses.

It is to HTTP what `router.rpc.boundary` is to gRPC, and shares its places for calls.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from router.admission.identity import Call, TenantGuard
from router.admission.permits import Places
from router.events import CallCompleted
from router.http.reading import JSON, BodyReader, header_lines
from router.http.refusals import Refused, refusal
from router.http.streaming import SERVER
from router.openai.errors import CODES, Refusal
from router.openai.wishes import seconds_left
from router.ports import Observer
from router.telemetry import tracing
from router.telemetry.tracing import Tracer

MISSING_KEY = "the header `Authorization: Bearer <key>` is missing"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose caller is known, and its body.

    Attributes:
        request: where to write the response of a stream.
        headers: by lower-case name.
        body: empty where the endpoint reads none.
        ends: when its caller stops waiting, in the time of the event loop; None = never.
    """

    request: web.BaseRequest
    headers: Mapping[str, str]
    body: bytes
    call: Call
    ends: float | None = None


Endpoint = Callable[[Asked], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint.

    Attributes:
        name: as metrics and traces call it.
        method: the method of the API that a key must open for it; "" = any key does.
        reads: it has a body.
        open: it needs no credentials.
    """

    name: str
    method: str
    endpoint: Endpoint
    reads: bool = True
    open: bool = False


class Boundary:
    """Answers requests by their routes.

    Args:
        routes: by path, then by HTTP method; a path that ends in "/" holds for all that begin with it.
        places: for calls under way, whatever way they come in.
        reader: reads bodies.
        observer: sees how every call ended.
        tracer: makes a span around every call.
    """

    def __init__(
        self,
        routes: Mapping[str, Mapping[str, Route]],
        guard: TenantGuard,
        places: Places,
        reader: BodyReader,
        observer: Observer,
        tracer: Tracer,
    ) -> None:
        self._routes = routes
        self._guard = guard
        self._places = places
        self._reader = reader
        self._observer = observer
        self._tracer = tracer

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response to a request; raises nothing but CancelledError, where the caller has left."""
        name = "unknown"
        try:
            route = self._route(request)
            name = route.name
            response = await self._answered(route, request)
        except asyncio.CancelledError:
            self._observer(CallCompleted(name, CODES[499]))
            raise
        except ConnectionError:  # the caller has left while it was written to
            self._observer(CallCompleted(name, CODES[499]))
            raise
        except Exception as error:
            refused = refusal(error)
            self._observer(CallCompleted(name, refused.code))
            return refused_response(refused)
        self._observer(CallCompleted(name, getattr(response, "ended", "OK")))
        return response

    async def _answered(self, route: Route, request: web.BaseRequest) -> web.StreamResponse:
        headers = header_lines(request)
        if route.open:
            return await route.endpoint(Asked(request, headers, b"", Call()))
        with self._tracer(route.name, {one: headers[one] for one in tracing.HEADERS if one in headers}) as onward:
            tracing.carried.set(onward)
            # In this order: a caller without credentials takes no place, and nothing of its body is read.
            tenant = self._guard.tenant(
                route.method, headers.get("authorization"), lambda: _certified(request), MISSING_KEY
            )
            self._places.require_room(tenant)
            call, began = Call(tenant, seconds_left(headers)), asyncio.get_running_loop().time()
            body = await self._reader.read(tenant, request) if route.reads else b""
            with self._places.held(tenant, len(body)):
                ends = None if call.remaining is None else began + call.remaining
                return await route.endpoint(Asked(request, headers, body, call, ends))

    def _route(self, request: web.BaseRequest) -> Route:
        methods = self._methods(request.path)
        # The response to HEAD is that to GET; aiohttp leaves its body out.
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join((*methods, *(["HEAD"] if "GET" in methods else [])))
            raise Refused(405, f"the method must be {allowed}", "method_not_allowed", {"allow": allowed})
        return route

    def _methods(self, path: str) -> Mapping[str, Route]:
        if (methods := self._routes.get(path.rstrip("/"))) is not None:
            return methods
        for folder, methods in self._routes.items():
            if folder.endswith("/") and path.startswith(folder):
                return methods
        raise Refused(404, f"no such path; there are {', '.join(self._routes)}", "not_found")


def refused_response(refused: Refusal) -> web.Response:
    """The response to a request that fails."""
    return json_response(refused.body, refused.headers, refused.status)


def json_response(body: Mapping[str, Any], headers: Mapping[str, str] | None = None, status: int = 200) -> web.Response:
    """A response of JSON."""
    return web.Response(
        body=orjson.dumps(body), status=status, headers={**SERVER, **(headers or {})}, content_type=JSON
    )


def _certified(request: web.BaseRequest) -> Iterator[str]:
    """The names in the client's certificate, which TLS has verified."""
    shown = request.get_extra_info("peercert") or {}
    yield from (value for part in shown.get("subject", ()) for name, value in part if name == "commonName")
    yield from (value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS")
