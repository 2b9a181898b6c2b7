"""The admin service for operators: the state of a model, other bundles, the cache, and learning."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.admission.identity import Call
from router.errors import InvalidRequest
from router.learning.overview import Overview
from router.routing.hot_swap import HotSwap
from router.routing.router import BudgetRouter
from router.rpc import decisions, learning, responses
from router.rpc.enums import ENFORCEMENTS


class AdminServicer(pb_grpc.BudgetRouterAdminServiceServicer):
    """Answers `BudgetRouterAdminService`; errors become statuses at the boundary.

    Args:
        swaps: how to serve another bundle, by model.
        flush: drops all cached scores. Raises CacheError.
        learning: reads how far learning has come; blocks. Raises ArtifactError, OutcomeFileError.
    """

    def __init__(
        self,
        router: BudgetRouter,
        swaps: Mapping[str, HotSwap],
        flush: Callable[[], Awaitable[None]],
        learning: Callable[[], Overview] = Overview,
    ) -> None:
        self._router = router
        self._swaps = swaps
        self._flush = flush
        self._learning = learning

    async def GetModelStatus(self, request: pb.GetModelStatusRequest, call: Call) -> pb.GetModelStatusResponse:
        """Describe the bundle, the certificates and the enforcement of a model."""
        served = self._router.served_model(request.model)
        manifest = served.bundle.manifest
        created = Timestamp()
        created.FromDatetime(manifest.created_at)
        return pb.GetModelStatusResponse(
            model=served.model,
            model_version=served.bundle.version,
            created_at=created,
            rungs=[rung.name for rung in manifest.ladder.rungs],
            certificates=[decisions.certificate(one, manifest.ladder) for one in manifest.certificates],
            stopping=[responses.stopping(one, manifest.ladder) for one in manifest.stopping],
            steps=served.climbs,
            backend_fingerprint=manifest.backend_fingerprint,
            suspended=served.suspended,
            enforcement=ENFORCEMENTS.numbers[served.enforcement],
        )

    async def FlushCache(self, request: pb.FlushCacheRequest, call: Call) -> pb.FlushCacheResponse:
        """Drop all cached scores."""
        if request.tenant:  # keys are hashes, which do not show whose entry it is
            raise InvalidRequest("tenant", "a single tenant's scores cannot be flushed; leave it empty to flush all")
        await self._flush()
        return pb.FlushCacheResponse()

    async def PromoteModel(self, request: pb.PromoteModelRequest, call: Call) -> pb.PromoteModelResponse:
        """Verify another bundle, add it to the registry, and serve it from the next request on."""
        if not request.path:
            raise InvalidRequest("path", "is required")
        return pb.PromoteModelResponse(model_version=await self._swap(request.model).promote(Path(request.path)))

    async def RollbackModel(self, request: pb.RollbackModelRequest, call: Call) -> pb.RollbackModelResponse:
        """Serve the bundle before the current one again."""
        return pb.RollbackModelResponse(model_version=await self._swap(request.model).rollback())

    async def GetLearningStatus(self, request: pb.GetLearningStatusRequest, call: Call) -> pb.GetLearningStatusResponse:
        """Say how far learning has come."""
        found = await asyncio.to_thread(self._learning)
        promoted = () if found.learning is None else found.learning.promoted
        learned = (served for served in self._router.served_models if served.bundle.version in promoted)
        return learning.response(replace(found, suspended=next((served.suspended for served in learned), "")))

    def _swap(self, model: str) -> HotSwap:
        """The swap of a model; "" stands for the first one. Raises NotFound."""
        return self._swaps[self._router.served_model(model).model]
