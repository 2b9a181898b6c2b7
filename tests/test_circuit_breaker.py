"""What failed is left out, for longer each time, then tried by one caller."""

from router.circuit_breaker import FAILURES, Breaker


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock) -> Breaker:
    breaker = Breaker(1.0, 8.0, clock)
    for _ in range(FAILURES):
        breaker.failed()
    return breaker


def test_a_few_failures_in_a_row_leave_it_out() -> None:
    breaker = Breaker(1.0, 8.0, Clock())
    for _ in range(FAILURES - 1):
        breaker.failed()
    assert breaker.allows()
    breaker.succeeded()
    for _ in range(FAILURES - 1):
        breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()


def test_after_its_time_one_caller_may_try() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 1.0
    assert breaker.allows()
    breaker.started()
    assert not breaker.allows()
    breaker.succeeded()
    assert breaker.allows()


def test_a_caller_who_never_came_back_does_not_block_it() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 1.0
    breaker.started()
    clock.now += 1.0
    assert breaker.allows()


def test_each_failed_trial_doubles_the_time_up_to_the_longest() -> None:
    clock = Clock()
    breaker = broken(clock)
    for away in (1.0, 2.0, 4.0, 8.0, 8.0):
        clock.now += away - 0.01
        assert not breaker.allows()
        clock.now += 0.01
        assert breaker.allows()
        breaker.started()
        breaker.failed()


def test_a_thousand_failures_at_once_are_one_time_away() -> None:
    clock = Clock()
    breaker = Breaker(1.0, 300.0, clock)
    for _ in range(1_000):
        breaker.failed()
    clock.now += 1.0
    assert breaker.allows()


def test_it_can_be_left_out_by_hand() -> None:
    clock = Clock()
    breaker = Breaker(1.0, 8.0, clock)
    breaker.trip()
    assert not breaker.allows()
    clock.now += 1.0
    assert breaker.allows()
