"""Entries of a shared store: their data and a seal, by which a replica knows what another replica wrote.

Anyone who can write to the store could otherwise choose the budgets. The seal is a keyed BLAKE2b of key and data, so
an entry answers for its own key alone. Keys of scores contain the bundle's digest, and with it the seals do.
"""

from hashlib import blake2b, sha256
from hmac import compare_digest

from router.bundle.checks import MOST_RUNGS
from router.domain import Score
from router.scoring.packed import fits, packed, packed_bytes, unpacked

SEAL = 16
"""Bytes of a seal."""

MOST_BYTES = packed_bytes(MOST_RUNGS) + SEAL
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
        """A packed score and its seal."""
        return self.sealed(key, packed(score))

    def decode(self, key: bytes, entry: bytes) -> Score | None:
        """The inverse of `encode`; None where the entry is damaged, of another key, or from somebody else."""
        data = self.opened(key, entry)
        return None if data is None or not fits(data) else unpacked(data)

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
