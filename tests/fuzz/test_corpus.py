"""Everything that the fuzzer found worth keeping, once more; and random bytes."""

import random
from pathlib import Path

import pytest

from tests.support.fuzz_targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_kept_crashes_nothing(name: str) -> None:
    kept = sorted((CORPUS / name).iterdir())
    assert len(kept) >= 5
    told = {TARGETS[name](file.read_bytes()) for file in kept}
    assert "OK" in told and len(told) > 1


@pytest.mark.parametrize("name", TARGETS)
def test_random_changes_crash_nothing(name: str) -> None:
    draw = random.Random(0)
    seeds = [file.read_bytes() for file in sorted((CORPUS / name).iterdir())]
    for _ in range(3_000):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.randrange(1, 8)):
            place = draw.randrange(len(data) + 1)
            data[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(4))
        TARGETS[name](bytes(data))
