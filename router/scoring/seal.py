"""Entries of a shared store: their data and a seal, by which a replica knows what another replica wrote.

Anyone who can write to the store could otherwise choose the budgets. The seal is a keyed BLAKE2b of key and data, so
an entry answers for its own key alone. Keys of scores contain the bundle's digest, and with it the seals do.
"""

import struct
from hashlib import blake2b, sha256
from hmac import compare_digest
from math import isnan, nan

from router.bundle.checks import MOST_RUNGS
from router.domain import Score

SEAL = 16
"""Bytes of a seal."""

PER_RUNG = 5
"""Numbers a rung takes in an entry: quality, then mean, p50, p90 and p99 thinking tokens."""

MOST_BYTES = MOST_RUNGS * 8 * PER_RUNG + 8 + SEAL
"""Largest entry."""


class Seal:
    """Seals entries and knows its own again.

    Args:
        secret: the same for all replicas.
    """

    def __init__(self, secret: bytes) -> None:
        # Derived, since the secret itself is the key of other hashes.
        self._keyed = blake2b(key=sha256(b"seal of cached scores\0" + secret).digest(), digest_size=SEAL)

    def encode(self, key: bytes, score: Score) -> bytes:
        """A score as little-endian doubles, rung by rung, then 1 if it is far, and their seal; NaN = no forecast."""
        numbers = [*(nan if number is None else number for rung in score.rungs for number in rung), float(score.far)]
        data = struct.pack(f"<{len(numbers)}d", *numbers)
        return self.sealed(key, data)

    def decode(self, key: bytes, entry: bytes) -> Score | None:
        """The inverse of `encode`; None where the entry is damaged, of another key, or from somebody else."""
        rungs, rest = divmod(len(entry) - SEAL, 8 * PER_RUNG)
        if rungs < 1 or rest != 8 or (data := self.opened(key, entry)) is None:
            return None
        *numbers, far = struct.unpack(f"<{rungs * PER_RUNG + 1}d", data)
        quality, *tokens = (tuple(numbers[i::PER_RUNG]) for i in range(PER_RUNG))
        return Score(quality, *(tuple(None if isnan(n) else n for n in column) for column in tokens), far=bool(far))

    def sealed(self, key: bytes, data: bytes) -> bytes:
        """Data with a seal behind it."""
        return data + self._of(key, data)

    def opened(self, key: bytes, entry: bytes) -> bytes | None:
        """The data of an entry; None where it is damaged, of another key, or from somebody else."""
        data, seal = entry[:-SEAL], entry[-SEAL:]
        return data if compare_digest(seal, self._of(key, data)) else None

    def _of(self, key: bytes, data: bytes) -> bytes:
        keyed = self._keyed.copy()
        # The length keeps a byte from wandering between key and numbers.
        keyed.update(len(key).to_bytes(8, "big") + key + data)
        return keyed.digest()
