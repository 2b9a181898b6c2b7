"""What the cuts of a thought show together."""

import pytest

from router.stopping.evidence import Evidence, Probe, following, probed

PROBE = Probe("4", 2, True, -0.5, -1.0, -3.0)


def folded(*keys: str | None) -> list[Evidence]:
    found: list[Evidence] = []
    for tokens, key in enumerate(keys):
        found.append(following(found[-1] if found else None, key, PROBE, tokens, False, 0.5))
    return found


@pytest.mark.parametrize(
    ("keys", "stood", "changed"),
    [
        (["4"], [0], [False]),
        (["4", "4", "4"], [0, 1, 2], [False, False, False]),
        (["4", "5", "5", "4"], [0, 0, 1, 0], [False, True, True, True]),
        ([None, None, "4", "4"], [0, 0, 0, 1], [False, False, True, True]),
        (["4", None, "4"], [0, 0, 0], [False, True, True]),
    ],
)
def test_an_answer_stands_while_it_is_the_same(keys: list[str | None], stood: list[int], changed: list[bool]) -> None:
    found = folded(*keys)
    assert [one.stood for one in found] == stood
    assert [one.changed for one in found] == changed


def test_the_rest_is_of_this_cut() -> None:
    assert following(None, "4", PROBE, 16, True) == Evidence("4", 0, False, -0.5, -1.0, -3.0, 16, True, None)


def test_the_probabilities_of_a_probe() -> None:
    assert probed("4", 2, True, [-1.0, -0.5], -2.0) == Probe("4", 2, True, -0.75, -1.0, -2.0)
    assert probed("4", 2, True, []) == Probe("4", 2, True)
