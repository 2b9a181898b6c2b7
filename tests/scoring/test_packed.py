"""Packed scores come back with every bit, and their lengths are known."""

from hypothesis import given
from hypothesis import strategies as st

from router.domain import Score
from router.scoring.packed import fits, packed, packed_bytes, unpacked

NUMBERS = st.floats(allow_nan=False)
COUNTS = st.none() | NUMBERS
RUNGS = st.lists(st.tuples(NUMBERS, COUNTS, COUNTS, COUNTS, COUNTS), min_size=1, max_size=8)


@given(RUNGS, st.booleans())
def test_a_score_comes_back(rungs: list[tuple[float, float | None]], far: bool) -> None:
    score = Score(*zip(*rungs, strict=True), far=far)
    data = packed(score)
    assert repr(unpacked(data)) == repr(score)
    assert fits(data) and len(data) == packed_bytes(len(rungs))


@given(st.integers(0, 1_000))
def test_other_lengths_are_no_scores(length: int) -> None:
    assert fits(bytes(length)) == (length in {packed_bytes(rungs) for rungs in range(1, 26)})
