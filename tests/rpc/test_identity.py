"""Who may call what: every method with every kind of credential, through real servers and stubs."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from router._gen import budget_router_pb2 as pb
from router.admission.tenants import Key, Tenant, Tenants, digest
from router.bundle.manifest import Bundle
from tests.rpc.conftest import TOKEN, Service, bearer, decide, generate, refusal, serving
from tests.support.fakes import DictCache, ListLog, router_of

ONE, OTHER, EXPIRED, NARROW = "one's key", "other's key", "one's old key", "one's key for Decide alone"
YESTERDAY, TOMORROW = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))
TENANTS = Tenants(
    {
        "one": Tenant(
            keys=(
                Key(sha256=digest(ONE), expires=TOMORROW),
                Key(sha256=digest(EXPIRED), expires=YESTERDAY),
                Key(sha256=digest(NARROW), methods=frozenset({"Decide"})),
            )
        ),
        "other": Tenant(keys=(Key(sha256=digest(OTHER)),)),
    }
)
ROUTING: dict[str, Any] = {
    "Decide": decide(),
    "DecideBatch": pb.DecideBatchRequest(requests=[decide()]),
    "Generate": generate(),
    "ReportOutcome": pb.ReportOutcomeRequest(decision_id="unknown", correct=1, label_source=pb.LABEL_SOURCE_USER),
    "Explain": pb.ExplainRequest(request=decide()),
}
ADMIN: dict[str, Any] = {
    "GetModelStatus": pb.GetModelStatusRequest(),
    "GetLearningStatus": pb.GetLearningStatusRequest(),
    "PromoteModel": pb.PromoteModelRequest(path="/nowhere"),
    "RollbackModel": pb.RollbackModelRequest(),
    "FlushCache": pb.FlushCacheRequest(),
}
WRONG: dict[str, Any] = {
    "missing": {},
    "empty": bearer(""),
    "wrong": bearer("a guess"),
    "its digest": bearer(digest(ONE)),
    "another scheme": {"metadata": (("authorization", f"Basic {ONE}"),)},
    "expired": bearer(EXPIRED),
}
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture
async def closed(bundle: Bundle) -> AsyncIterator[Service]:
    """A service whose tenants have keys."""
    async with serving(router_of(tenants=("one", "other")), bundle, tenants=TENANTS) as service:
        yield service


async def ended(call: Any) -> Any:
    """The last reply."""
    return [reply async for reply in call][-1] if isinstance(call, grpc.aio.UnaryStreamCall) else await call


def test_the_matrix_names_every_method() -> None:
    services = pb.DESCRIPTOR.services_by_name
    assert set(ROUTING) == set(services["BudgetRouterService"].methods_by_name)
    assert set(ADMIN) == set(services["BudgetRouterAdminService"].methods_by_name)


@pytest.mark.parametrize("method", ROUTING)
@pytest.mark.parametrize("how", WRONG)
async def test_without_a_good_key_no_method_opens(closed: Service, method: str, how: str) -> None:
    seen = await refusal(getattr(closed.routing, method)(ROUTING[method], **WRONG[how]))
    assert (seen.code, seen.reason) == (UNAUTHENTICATED, "Unauthenticated")
    assert ONE not in seen.message and EXPIRED not in seen.message


@pytest.mark.parametrize("method", ADMIN)
@pytest.mark.parametrize("how", [*WRONG, "a tenant's"])
async def test_without_the_operators_token_no_admin_method_opens(closed: Service, method: str, how: str) -> None:
    credentials = bearer(ONE) if how == "a tenant's" else WRONG[how]
    seen = await refusal(getattr(closed.admin, method)(ADMIN[method], **credentials))
    assert seen.code is UNAUTHENTICATED


@pytest.mark.parametrize("method", ROUTING)
async def test_the_operators_token_opens_no_tenants_method(closed: Service, method: str) -> None:
    seen = await refusal(getattr(closed.routing, method)(ROUTING[method], **bearer(TOKEN)))
    assert seen.code is UNAUTHENTICATED


@pytest.mark.parametrize("method", ["Decide", "DecideBatch", "Generate", "Explain"])
async def test_a_good_key_opens_its_tenants_methods(closed: Service, method: str) -> None:
    assert await ended(getattr(closed.routing, method)(ROUTING[method], **bearer(ONE)))


@pytest.mark.parametrize("method", sorted(set(ROUTING) - {"Decide"}))
async def test_a_key_for_one_method_opens_no_other(closed: Service, method: str) -> None:
    seen = await refusal(getattr(closed.routing, method)(ROUTING[method], **bearer(NARROW)))
    assert seen.code is DENIED
    assert await closed.routing.Decide(decide(), **bearer(NARROW))


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Decide", decide(tenant="other")),
        ("DecideBatch", pb.DecideBatchRequest(requests=[decide(), decide(tenant="other")])),
        ("Generate", generate(tenant="other")),
        ("Explain", pb.ExplainRequest(request=decide(tenant="other"))),
        ("Explain", pb.ExplainRequest(decision_id="some", tenant="other")),
    ],
)
async def test_no_one_speaks_for_another_tenant(closed: Service, method: str, request_: Any) -> None:
    seen = await refusal(getattr(closed.routing, method)(request_, **bearer(ONE)))
    assert seen.code is DENIED
    own = await closed.routing.Decide(decide(tenant="one"), **bearer(ONE))
    assert own.decision.decision_id


async def test_a_tenant_reads_and_rates_only_its_own_decisions(bundle: Bundle) -> None:
    log = ListLog()
    async with serving(router_of(tenants=("one", "other"), log=log), bundle, tenants=TENANTS) as service:
        known = (await service.routing.Decide(decide(), **bearer(ONE))).decision.decision_id
        told = []
        for decision_id in (known, "unknown"):
            explain = pb.ExplainRequest(decision_id=decision_id)
            report = pb.ReportOutcomeRequest(decision_id=decision_id, correct=0, label_source=pb.LABEL_SOURCE_USER)
            told.append(
                (
                    await refusal(service.routing.Explain(explain, **bearer(OTHER))),
                    await refusal(service.routing.ReportOutcome(report, **bearer(OTHER))),
                )
            )
        assert told[0] == told[1], "whether a decision exists is not told either"
        assert not log.outcomes
        await service.routing.ReportOutcome(
            pb.ReportOutcomeRequest(decision_id=known, correct=1, label_source=pb.LABEL_SOURCE_USER), **bearer(ONE)
        )
        assert (await service.routing.Explain(pb.ExplainRequest(decision_id=known), **bearer(ONE))).sentences


async def test_a_prompt_that_another_tenant_asked_is_scored_anew(bundle: Bundle) -> None:
    """What one asked cannot be learnt from how soon the other is answered."""
    cache = DictCache()
    async with serving(router_of(tenants=("one", "other"), cache=cache), bundle, tenants=TENANTS) as service:
        sources = [(await service.routing.Decide(decide(), **bearer(k))).decision.source for k in (ONE, OTHER, ONE)]
    assert sources == [pb.DECISION_SOURCE_CLASSIFIER, pb.DECISION_SOURCE_CLASSIFIER, pb.DECISION_SOURCE_CACHE]
    assert len(cache.scores) == 2


async def test_a_key_that_is_taken_away_opens_nothing_from_then_on(bundle: Bundle) -> None:
    known = Tenants({"one": Tenant(keys=(Key(sha256=digest(ONE)), Key(sha256=digest(NARROW))))})
    async with serving(router_of(tenants=("one",)), bundle, tenants=known) as service:
        assert await service.routing.Decide(decide(), **bearer(ONE))
        known.replace({"one": Tenant(keys=(Key(sha256=digest(NARROW)),))})
        assert (await refusal(service.routing.Decide(decide(), **bearer(ONE)))).code is UNAUTHENTICATED
