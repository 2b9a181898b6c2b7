"""Results are passed on in the order in which their work began, and nothing waits for ever for one of them."""

import pytest

from router.learning.in_order import InOrder
from tests.support.clock import Clock

PATIENCE = 600.0


@pytest.fixture
def passed() -> list[str]:
    """What was passed on."""
    return []


@pytest.fixture
def clock() -> Clock:
    """The clock that the line goes by."""
    return Clock()


@pytest.fixture
def line(passed: list[str], clock: Clock) -> InOrder[str]:
    """A line."""
    return InOrder(passed.append, PATIENCE, clock)


def test_what_ends_first_waits_for_what_began_before(line: InOrder[str], passed: list[str]) -> None:
    first, second, third = line.begin(), line.begin(), line.begin()
    line.end(third, "third")
    line.end(second)
    assert not passed and len(line) == 3
    line.end(first, "first")
    assert passed == ["first", "third"] and len(line) == 0


@pytest.mark.parametrize("result", ["true", None])
def test_what_takes_too_long_is_passed_on_at_its_worst_and_followed_by_the_truth(
    result: str | None, line: InOrder[str], passed: list[str], clock: Clock
) -> None:
    first = line.begin()
    first.worst = lambda: "worst"
    second = line.begin()
    clock.pass_by(PATIENCE)
    line.end(second, "second")
    assert not passed
    clock.pass_by(1.0)
    third = line.begin()
    assert passed == ["worst", "second"] and len(line) == 1
    line.end(first, result)
    line.end(third, "third")
    assert passed == ["worst", "second", *([result] if result else []), "third"]
