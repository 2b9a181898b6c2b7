"""Long work lets others run, by its steps and not by the clock."""

import asyncio
from itertools import pairwise

import pytest

from router.turn import STEPS, Turn


async def others_ran(steps: list[int]) -> list[bool]:
    """Whether another task ran while so many steps were counted, one entry for each."""
    ran, turn = 0, Turn()

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    found = []
    for one in steps:
        before = ran
        await turn.spend(one)
        found.append(ran > before)
    task.cancel()
    return found


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([1, STEPS - 2, 1, STEPS - 1, 1], [False, False, True, False, True]),
        ([STEPS * 10, 1], [True, False]),
        ([0] * 3, [False] * 3),
    ],
)
async def test_others_run_whenever_a_turn_is_over(steps: list[int], expected: list[bool]) -> None:
    assert await others_ran(steps) == expected


async def test_of_long_works_one_goes_on_in_a_round_and_each_gets_its_turn() -> None:
    """A short call that takes some rounds would else wait for all of them in each."""
    done = dict.fromkeys(range(8), 0)

    async def long_work(number: int) -> None:
        turn = Turn()
        for _ in range(4):
            await turn.spend(STEPS)
            done[number] += 1

    works, seen = asyncio.gather(*map(long_work, done)), [0]
    while not works.done():
        await asyncio.sleep(0)
        assert max(done.values()) - min(done.values()) <= 1
        seen.append(sum(done.values()))
    assert seen[-1] == 8 * 4
    assert max(after - before for before, after in pairwise(seen)) == 1
