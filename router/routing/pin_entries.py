"""Names and entries of conversations in Redis: keyed hashes, and sealed pins without any text of a caller."""

import json
from hashlib import blake2b, sha256

from router.domain import Conversation, Pinned
from router.scoring.seal import SEAL, Seal

NAME_BYTES = 32
MOST_BYTES = 128 + SEAL
"""Largest entry."""


class PinEntries:
    """Names conversations, and seals what they keep.

    Args:
        secret: the same for all replicas.
    """

    def __init__(self, secret: bytes) -> None:
        # Derived, since the secret itself is the key of other hashes.
        self._key = sha256(b"names of conversations\0" + secret).digest()
        self._seal = Seal(secret)

    def keys(self, tenant: str) -> tuple[str, str]:
        """A tenant's entries, and their ends. A cluster hashes the part in braces, so both lie on one node."""
        owner = self._hash([tenant]).hex()
        return f"budget_router:pins:1:{{{owner}}}:kept", f"budget_router:pins:1:{{{owner}}}:ends"

    def field(self, conversation: Conversation) -> bytes:
        """The name of a conversation among those of its tenant."""
        model, tenant, id_, ladder = conversation
        return self._hash([model, tenant, id_, [[rung.name, rung.tokens] for rung in ladder.rungs]])

    def encode(self, field: bytes, pinned: Pinned | None) -> bytes:
        """The entry for a pin; empty for none."""
        if pinned is None:
            return b""
        values = [pinned.index, int(pinned.stops), pinned.judged, int(pinned.cut)]
        return self._seal.sealed(field, json.dumps(values).encode())

    def decode(self, field: bytes, entry: bytes) -> Pinned | None:
        """The inverse of `encode`; None also where an entry is damaged, of another conversation, or somebody else's."""
        if (data := self._seal.opened(field, entry)) is None:
            return None
        index, stops, judged, cut = json.loads(data)
        return Pinned(index, bool(stops), judged, bool(cut))

    def _hash(self, parts: list[object]) -> bytes:
        return blake2b(json.dumps(parts).encode(), key=self._key, digest_size=NAME_BYTES).digest()
