"""A model that compares two answers is asked in both orders, and believed where it agrees with itself."""

import re
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from router.domain import Prompt
from router.errors import BackendError
from router.learning.judging import Verdict
from router.learning.model_judge import ByModel
from tests.support.court import Court, court

_ANSWERS = re.compile(r"<first>\n(.*)\n</first>\n\n<second>\n(.*)\n</second>")


def prefers(right: str, otherwise: str = "equal") -> Callable[[str], str]:
    """A judge that knows the right answer."""

    def says(prompt: str) -> str:
        found = _ANSWERS.search(prompt)
        assert found is not None
        first, second = (right in answer for answer in found.groups())
        return otherwise if first == second else "first" if first else "second"

    return says


async def verdict(of: Court, *others: str) -> Verdict:
    async with AsyncExitStack() as stack:
        return await ByModel(of.url, "wise", "key", stack).compare(Prompt.of("2 + {2} ="), "It is 4.", others)


async def test_what_is_worse_in_both_orders_is_lost() -> None:
    async with court(says=prefers("4")) as judge:
        assert await verdict(judge, "It is 5.", "4", "{first}") == Verdict(1.0, (0.0, 1.0, 0.0), 18)
    assert judge.keys == {"Bearer key"}
    asked = [body["messages"][0]["content"] for body in judge.asked]
    assert len(asked) == 6 and all("user: 2 + {2} =" in question for question in asked)


async def test_what_is_better_than_what_was_served_is_not_lost() -> None:
    async with court(says=prefers("5")) as judge:
        assert (await verdict(judge, "It is 5.")).others == (1.0,)


@pytest.mark.parametrize("says", ["first", "second", "perhaps", "", "first, or second"])
async def test_a_judge_that_goes_by_the_order_has_no_verdict(says: str) -> None:
    async with court(says=says) as judge:
        assert (await verdict(judge, "It is 5.")).others == (None,)


@pytest.mark.parametrize("says", ["Equal.", "<think>first?</think>\n**equal**"])
async def test_the_word_may_be_written_in_any_way(says: str) -> None:
    async with court(says=says) as judge:
        assert (await verdict(judge, "It is 5.")).others == (1.0,)


async def test_a_judge_that_is_down_is_an_error() -> None:
    async with court(status=500) as judge:
        with pytest.raises(BackendError):
            await verdict(judge, "It is 5.")
