"""Only those who know the secret can write a score."""

from hypothesis import given
from hypothesis import strategies as st

from router.domain import Score
from router.scoring.seal import SEAL, Seal
from tests.support.fakes import RISING

NUMBERS = st.floats(allow_nan=False)
COUNTS = st.none() | NUMBERS
RUNGS = st.lists(st.tuples(NUMBERS, COUNTS, COUNTS, COUNTS, COUNTS), min_size=1, max_size=8)
KEYS = st.binary(max_size=40)


@given(KEYS, RUNGS, st.booleans())
def test_a_sealed_score_comes_back(key: bytes, rungs: list[tuple[float, float | None]], far: bool) -> None:
    score = Score(*zip(*rungs, strict=True), far=far)
    assert Seal(b"secret").decode(key, Seal(b"secret").encode(key, score)) == score


@given(KEYS, st.binary(max_size=400))
def test_arbitrary_bytes_are_not_mistaken_for_a_score(key: bytes, data: bytes) -> None:
    assert Seal(b"secret").decode(key, data) is None


@given(KEYS, st.data())
def test_a_changed_bit_is_noticed(key: bytes, data: st.DataObject) -> None:
    entry = bytearray(Seal(b"secret").encode(key, RISING))
    bit = data.draw(st.integers(0, 8 * len(entry) - 1))
    entry[bit // 8] ^= 1 << bit % 8
    assert Seal(b"secret").decode(key, bytes(entry)) is None


@given(KEYS, KEYS, st.binary(max_size=20), st.binary(max_size=20))
def test_another_key_or_secret_is_noticed(key: bytes, other: bytes, secret: bytes, another: bytes) -> None:
    entry = Seal(secret).encode(key, RISING)
    assert (Seal(another).decode(other, entry) is None) == ((key, secret) != (other, another))


@given(KEYS)
def test_no_byte_wanders_between_key_and_numbers(key: bytes) -> None:
    seal = Seal(b"secret")
    entry = seal.encode(key, RISING)
    assert seal.decode(key + entry[:8], entry[8:]) is None and len(entry) > SEAL + 8
