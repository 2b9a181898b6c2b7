"""The admin service: what is loaded, and the cache."""

import hmac
from collections.abc import Awaitable, Callable

from google.protobuf.timestamp_pb2 import Timestamp
from grpc.aio import ServicerContext

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.errors import InvalidRequest, NotImplementedYet, PermissionDenied
from router.routing import BudgetRouter
from router.rpc import responses

Context = ServicerContext[object, object]


class AdminServicer(pb_grpc.BudgetRouterAdminServiceServicer):
    """Answers `BudgetRouterAdminService` to callers who know the token; an empty token closes it."""

    def __init__(self, token: str, router: BudgetRouter, flush: Callable[[], Awaitable[None]]) -> None:
        self._token = token
        self._router = router
        self._flush = flush

    async def GetModelStatus(self, request: pb.GetModelStatusRequest, context: Context) -> pb.GetModelStatusResponse:
        """What is loaded for a model."""
        self._authorize(context)
        profile = self._router.profile(request.model)
        manifest = profile.bundle.manifest
        created = Timestamp()
        created.FromDatetime(manifest.created_at)
        return pb.GetModelStatusResponse(
            model=profile.model,
            model_version=profile.bundle.version,
            created_at=created,
            rungs=[rung.name for rung in manifest.ladder.rungs],
            certificates=map(responses.certificate, manifest.certificates),
            backend_fingerprint=manifest.backend_fingerprint,
            enforcement=responses.ENFORCEMENTS[profile.enforcement],
        )

    async def FlushCache(self, request: pb.FlushCacheRequest, context: Context) -> pb.FlushCacheResponse:
        """Forget every cached score."""
        self._authorize(context)
        if request.tenant:
            raise InvalidRequest("tenant", "flushing one tenant comes with a later version; leave it empty for all")
        await self._flush()
        return pb.FlushCacheResponse()

    async def PromoteModel(self, request: pb.PromoteModelRequest, context: Context) -> pb.PromoteModelResponse:
        """Not of this version."""
        self._authorize(context)
        raise NotImplementedYet("promotion comes with a later version; restart with another BUDGET_ROUTER_ARTIFACT")

    async def RollbackModel(self, request: pb.RollbackModelRequest, context: Context) -> pb.RollbackModelResponse:
        """Not of this version."""
        self._authorize(context)
        raise NotImplementedYet("rollback comes with a later version; restart with the earlier BUDGET_ROUTER_ARTIFACT")

    def _authorize(self, context: Context) -> None:
        if not self._token:
            raise PermissionDenied("the admin service is closed: BUDGET_ROUTER_ADMIN_TOKEN is not set")
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not hmac.compare_digest(str(given).encode(), f"Bearer {self._token}".encode()):
            raise PermissionDenied("metadata `authorization: Bearer <admin token>` is missing or wrong")
