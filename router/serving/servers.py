"""The servers by which programs ask a service: gRPC for callers, operators and gateways, and the OpenAI API."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from router.admission import identity
from router.admission.permits import Places
from router.envoy.decider import GatewayDecider
from router.envoy.gateway import Gateway
from router.envoy.processor import METHOD, SERVICE, ExternalProcessor
from router.routing.explain import Explainer
from router.rpc.admin import AdminServicer
from router.rpc.boundary import Boundary
from router.rpc.identity import OperatorGuard, TenantGuard
from router.rpc.server import Foreign, RouterServer, Service
from router.rpc.servicer import BudgetRouterServicer
from router.serving.parts import Parts
from router.serving.wiring import Wired

if TYPE_CHECKING:
    from router.envoy.watcher import Watcher
    from router.http.server import HttpServer

OPERATORS = 16
"""Calls of the admin service under way at once."""


def boundary(parts: Parts) -> Boundary:
    """The boundary of the routing service, whose places other ways in share."""
    ends, guard = parts.endpoints, TenantGuard(parts.tenants)
    return Boundary(guard, ends.max_streams, parts.observer, parts.tracer, ends.max_large_bytes)


def by_grpc(wired: Wired, around: Boundary) -> list[RouterServer]:
    """The server of the routing service, and that of the admin service where it is open. Raises SettingsError."""
    parts, ends = wired.parts, wired.parts.endpoints
    explainer = Explainer(wired.router, parts.outcomes)
    servicer = BudgetRouterServicer(wired.router, explainer, parts.limits, ends.window_seconds)
    routing = Service.routing(servicer, ends.max_message_bytes)
    servers = [
        _server(wired, routing, around, ends.listen, ends.connection_seconds, ends.health_listen, _beside(wired))
    ]
    if ends.admin_token:
        operators = Boundary(OperatorGuard(ends.admin_token), OPERATORS, parts.observer, parts.tracer)
        admin = Service.admin(AdminServicer(wired.router, wired.swaps, parts.cache.flush, parts.learned.read))
        servers.append(_server(wired, admin, operators, ends.admin_listen))
    return servers


def _server(
    wired: Wired,
    service: Service,
    boundary: Boundary,
    listen: str,
    connection_seconds: float = 0,
    probes: str = "",
    beside: Sequence[Foreign] = (),
) -> RouterServer:
    ends = wired.parts.endpoints
    credentials = None if ends.certificates is None else ends.certificates.credentials()
    return RouterServer(
        service, boundary, listen, credentials, wired.health, ends.shared, connection_seconds, probes, beside
    )


def _beside(wired: Wired) -> Sequence[Foreign]:
    """The services by which other programs than our clients ask for decisions."""
    parts = wired.parts
    if (gateway := parts.gateway) is None:
        return ()
    watcher = _watcher(wired, gateway) if gateway.responses else None
    expect = None if watcher is None else watcher.expect
    decider = GatewayDecider(wired.router, parts.tenants, parts.limits, gateway, parts.observer, expect)
    processor = ExternalProcessor(decider, watcher, response_headers=gateway.response_headers)
    return (Foreign(SERVICE, {METHOD: processor.process}),)


def _watcher(wired: Wired, gateway: Gateway) -> "Watcher":
    # Imported where it is chosen: it reads answers of engines, with what the client of HTTP needs.
    from router.envoy.watcher import Watcher

    dialects = {model: engine.dialect for model, engine in gateway.engines.items()}
    parts = wired.parts
    return Watcher(wired.router, parts.outcomes, parts.tenants, dialects, parts.observer)


def by_http(wired: Wired, places: Places) -> "list[HttpServer]":
    """The server of the OpenAI-compatible API, where it has an address. Raises SettingsError."""
    parts, ends = wired.parts, wired.parts.endpoints
    if not ends.http_listen:
        return []
    # Imported where it is chosen: the default start need not pay for an HTTP server.
    from router.http.boundary import Boundary as HttpBoundary
    from router.http.endpoints import Endpoints
    from router.http.reading import BodyReader
    from router.http.server import HttpServer

    routes = Endpoints(wired.router, parts.limits, wired.health, ends.window_seconds).routes
    reader = BodyReader(ends.max_message_bytes, ends.max_streams)
    guard = identity.TenantGuard(parts.tenants)
    boundary = HttpBoundary(routes, guard, places, reader, parts.observer, parts.tracer)
    tls = None if ends.certificates is None else ends.certificates.context()
    return [HttpServer(boundary, ends.http_listen, tls, ends.max_streams, ends.shared)]
