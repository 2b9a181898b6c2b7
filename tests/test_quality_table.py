"""The table of `make quality`: nothing is hidden, neither what is not certified nor how often certificates fail."""

from benchmarks.quality_table import table
from tests.support.reports import full, policy


def test_every_ladder_and_target_has_a_row_with_what_is_certified_and_how_often_it_fails() -> None:
    report = full(policies=[policy(0.02, 4), policy(0.05, 4, rung="rung 1", saved_against_top=None)])
    head, _, refused, learned, fixed = table({"mine": report}).splitlines()
    assert head.startswith("| ladder | loss of at most | certified |")
    assert refused == "| mine | 0.01 | no | - | - | - | - | 4.0 | 6.0 (0.4) |"
    assert learned.startswith("| mine | 0.02 | by prompt | 1.0 (0.5 to 2.0) | 31.0 (28.0 to 34.0) |")
    assert "| rung 1 for everybody |" in fixed and "| unknown |" in fixed
