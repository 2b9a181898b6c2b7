"""Where the default target saves nothing, one that does is offered, with the setting and the saving."""

from dataclasses import replace

import pytest

from router.bundle import manifest
from router.bundle.offers import WORTH, Offer, best_offer, offer_of
from router.domain import MaxLoss
from router.serving.default_target import uncovered
from router.stopping.rules import AgreeRule, StoppingCertificate
from tests.conftest import MODELS


def test_the_strictest_target_that_saves_something_is_offered() -> None:
    offer = best_offer(0.02, {0.02: 0.001, 0.05: 0.004, 0.1: 0.06})
    assert str(offer) == (
        "serve with BUDGET_ROUTER_MAX_LOSS=0.1, which is certified and saves 6 % of the thinking tokens on the test "
        "prompts"
    )
    assert str(best_offer(0.02, {0.05: None})) == "serve with BUDGET_ROUTER_MAX_LOSS=0.05, which is certified"


@pytest.mark.parametrize("saved", [{}, {0.02: 0.01}, {0.02: WORTH, 0.05: 0.3}, {0.01: 0.2, 0.05: 0.3}, {0.05: 0.0}])
def test_nothing_is_offered_where_the_target_saves_or_nothing_does(saved: dict[float, float | None]) -> None:
    assert best_offer(0.02, saved) is None


def test_a_rule_that_stops_within_the_thought_is_worth_serving() -> None:
    shipped = manifest.load(MODELS / "pocket-router").manifest
    rule = StoppingCertificate(0.001, 0.1, AgreeRule(0, 1), 400, 50.0, 12.0)
    assert offer_of(replace(shipped, stopping=(rule,)), 0.001) is None
    bare = replace(shipped, certificates=(), stopping=(replace(rule, alpha=0.01),))
    assert offer_of(bare, 0.001) == Offer(0.01, None)
    assert uncovered(MaxLoss(0.001), bare) and not uncovered(MaxLoss(0.01), bare)


def test_a_bundle_offers_what_its_fit_measured() -> None:
    shipped = manifest.load(MODELS / "pocket-router").manifest
    assert offer_of(shipped, 0.02) is None
    offer = offer_of(shipped, 0.001)
    assert offer is not None and offer.max_loss == 0.005 and offer.saved is not None and 0.01 < offer.saved < 0.1
