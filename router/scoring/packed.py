"""Scores as bytes, in this process and in a shared store: their numbers as objects would take five times the memory."""

from functools import cache
from itertools import chain
from math import isnan, nan
from struct import Struct, error

from router.domain import Score

PER_RUNG = 5
"""Numbers of a rung: quality, then mean, p50, p90 and p99 thinking tokens."""

NUMBER_BYTES = 8


def packed(score: Score) -> bytes:
    """A score as little-endian doubles, rung by rung, then 1 if it is far; NaN = no forecast."""
    numbers = [*chain.from_iterable(score.rungs), score.far]
    doubles = _doubles(len(numbers))
    try:  # hardly ever is one missing, so no number is looked at by itself
        return doubles.pack(*numbers)
    except error:
        return doubles.pack(*[nan if number is None else number for number in numbers])


def unpacked(data: bytes) -> Score:
    """The score in what `packed` has returned."""
    numbers = _doubles(len(data) // NUMBER_BYTES).unpack(data)
    columns = [numbers[i:-1:PER_RUNG] for i in range(PER_RUNG)]
    if isnan(sum(numbers)):  # likewise
        columns[1:] = map(_forecast, columns[1:])
    return Score(*columns, far=numbers[-1] != 0)


def packed_bytes(rungs: int) -> int:
    """Length of a packed score."""
    return NUMBER_BYTES * (PER_RUNG * rungs + 1)


def fits(data: bytes) -> bool:
    """True if a score may have that length."""
    rungs = len(data) // NUMBER_BYTES // PER_RUNG
    return rungs > 0 and len(data) == packed_bytes(rungs)


def _forecast(numbers: tuple[float, ...]) -> tuple[float | None, ...]:
    return tuple(None if isnan(number) else number for number in numbers)


@cache
def _doubles(count: int) -> Struct:
    return Struct(f"<{count}d")
