"""Every kind of attack of `tests/cases.md` has tests, and they exist."""

import pytest

from tests.support.cases import Case, cases


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.situation)
def test_every_kind_of_attack_has_a_test(case: Case) -> None:
    assert case.tests
    assert case.missing == []
