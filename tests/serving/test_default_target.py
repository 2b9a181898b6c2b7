"""What is said of requests that name no target, where the default one is not certified or saves nothing."""

from dataclasses import replace

import pytest

from router.bundle import manifest
from router.domain import MaxLoss
from router.serving.default_target import effect
from tests.conftest import MODELS

SHIPPED = manifest.load(MODELS / "pocket-router").manifest
UNPROVED = replace(SHIPPED, certificates=())
TARGET = MaxLoss(0.02)


@pytest.mark.parametrize("reference", [None, len(SHIPPED.ladder) - 1])
def test_without_a_shorter_reference_they_get_the_top_rung(reference: int | None) -> None:
    assert effect(TARGET, replace(UNPROVED, reference=reference)).endswith("get the top rung, which saves nothing")


def test_with_a_reference_they_get_that_rung_and_save() -> None:
    said = effect(TARGET, replace(UNPROVED, reference=2))
    assert f"get rung {SHIPPED.ladder.rungs[2].name}, as longer ones were right no more often" in said
    assert "top" not in said and "nothing" not in said


def test_a_certificate_that_saves_next_to_nothing_is_not_called_missing() -> None:
    assert effect(TARGET, SHIPPED).endswith("save next to nothing")
