"""The admin service through a real server and a real stub."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from router._gen import budget_router_pb2 as pb
from router.bundle.manifest import Bundle
from tests.conftest import MODELS
from tests.rpc.conftest import TOKEN, Service, bearer, decide, refusal, serving
from tests.support.fakes import FINGERPRINT, FOREIGN_BUNDLE, DictCache, router_of

CALLS: list[tuple[str, Any]] = [
    ("GetModelStatus", pb.GetModelStatusRequest()),
    ("PromoteModel", pb.PromoteModelRequest(path="/bundles/new")),
    ("RollbackModel", pb.RollbackModelRequest()),
    ("FlushCache", pb.FlushCacheRequest()),
    ("GetLearningStatus", pb.GetLearningStatusRequest()),
]
every_call = pytest.mark.parametrize(("method", "request_"), CALLS, ids=[name for name, _ in CALLS])


@every_call
async def test_without_credentials_everything_is_refused(fake: Service, method: str, request_: Any) -> None:
    seen = await refusal(getattr(fake.admin, method)(request_))
    assert seen.code is grpc.StatusCode.UNAUTHENTICATED
    assert TOKEN not in seen.message


@every_call
async def test_a_wrong_token_is_denied(fake: Service, method: str, request_: Any) -> None:
    for token in ("", "wrong", TOKEN[:-1], f"{TOKEN} ", TOKEN.upper()):
        seen = await refusal(getattr(fake.admin, method)(request_, **bearer(token)))
        assert seen.code is grpc.StatusCode.UNAUTHENTICATED
        assert TOKEN not in seen.message


@every_call
async def test_without_a_token_set_the_service_is_closed(bundle: Bundle, method: str, request_: Any) -> None:
    async with serving(router_of(), bundle, token="") as service:
        for token in ("", "anything"):
            seen = await refusal(getattr(service.admin, method)(request_, **bearer(token)))
            assert seen.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("scheme", ["Basic ", "bearer", "Bearer", ""])
async def test_other_schemes_are_denied(fake: Service, scheme: str) -> None:
    metadata = (("authorization", f"{scheme}{TOKEN}"),)
    seen = await refusal(fake.admin.GetModelStatus(pb.GetModelStatusRequest(), metadata=metadata))
    assert seen.code is grpc.StatusCode.UNAUTHENTICATED


async def test_status_tells_what_is_loaded(service: Service, bundle: Bundle) -> None:
    served = service.router.served_model("")
    status = await service.admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
    assert status.model == service.router.served_model("").model
    assert status.model_version == bundle.version
    assert list(status.rungs) == [rung.name for rung in bundle.manifest.ladder.rungs]
    assert [c.alpha for c in status.certificates] == [c.alpha for c in bundle.manifest.certificates]
    assert status.created_at.ToSeconds() == int(bundle.manifest.created_at.timestamp())
    assert status.suspended == ""
    service.router.suspend(status.model, bundle.version)
    status = await service.admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
    assert "more loss than was certified" in status.suspended
    assert status.backend_fingerprint == served.fingerprint
    assert status.enforcement == pb.ENFORCEMENT_NATIVE


async def test_status_says_that_the_bundle_is_about_another_engine(bundle: Bundle) -> None:
    async with serving(router_of(bundle=FOREIGN_BUNDLE), bundle) as service:
        status = await service.admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
        assert bundle.manifest.backend_fingerprint in status.suspended and FINGERPRINT in status.suspended
        service.router.suspend(status.model, bundle.version)
        status = await service.admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
        assert FINGERPRINT in status.suspended, "an audit of another engine adds nothing"
        decision = (await service.routing.Decide(decide())).decision
        assert (decision.source, decision.rung) == (pb.DECISION_SOURCE_ENGINE_DEFAULT, "default")
        assert not decision.HasField("budget_tokens") and not decision.HasField("predicted_quality")
        assert not decision.forecasts and not decision.certified and not decision.meets_target


async def test_a_flushed_score_is_computed_again(service: Service) -> None:
    await service.routing.Decide(decide())
    await service.admin.FlushCache(pb.FlushCacheRequest(), **bearer(TOKEN))
    for source in (pb.DECISION_SOURCE_CLASSIFIER, pb.DECISION_SOURCE_CACHE):
        assert (await service.routing.Decide(decide())).decision.source == source


async def test_flushing_one_tenant_is_refused_and_flushes_nothing(fake: Service, cache: DictCache) -> None:
    await fake.routing.Decide(decide())
    seen = await refusal(fake.admin.FlushCache(pb.FlushCacheRequest(tenant="default"), **bearer(TOKEN)))
    assert (seen.code, seen.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["tenant"])
    assert cache.scores


async def test_a_cache_that_cannot_be_flushed_is_unavailable(bundle: Bundle) -> None:
    async with serving(router_of(cache=DictCache(failing=True)), bundle) as service:
        seen = await refusal(service.admin.FlushCache(pb.FlushCacheRequest(), **bearer(TOKEN)))
    assert seen.code is grpc.StatusCode.UNAVAILABLE
    assert seen.retry_seconds


async def test_what_cannot_be_promoted_is_reported(service: Service, tmp_path: Path) -> None:
    for request, why in (
        (pb.PromoteModelRequest(path=str(tmp_path / "nowhere")), "nowhere"),
        (pb.PromoteModelRequest(path=str(MODELS / "pocket-router")), ""),
    ):
        seen = await refusal(service.admin.PromoteModel(request, **bearer(TOKEN)))
        assert (seen.code, seen.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ArtifactError")
        assert why in seen.message
    seen = await refusal(service.admin.RollbackModel(pb.RollbackModelRequest(), **bearer(TOKEN)))
    assert (seen.code, seen.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ArtifactError")
    unknown = pb.PromoteModelRequest(path="x", model="unknown")
    assert (await refusal(service.admin.PromoteModel(unknown, **bearer(TOKEN)))).fields == ["model"]
