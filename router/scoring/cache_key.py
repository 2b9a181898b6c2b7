"""Keys of scores in the cache. A key is a keyed hash, so prompt text never leaves the process."""

from functools import lru_cache
from hashlib import blake2b, sha256

from router.bundle.scored import view
from router.domain import BudgetLadder, Prompt

TENANT_BYTES = 8
"""The beginning of a key, which is the same for all prompts of a tenant: caches share their room fairly by it."""

KEY_BYTES = 32
TENANTS = 1_024
"""Tenants whose part of the hash is remembered."""

COUNTS = 256
"""Counts whose part of what is hashed is remembered: most prompts are a single turn, and share theirs."""


class ScoreKeys:
    """Keys for one model bundle: keyed BLAKE2b of bundle digest, ladder, tenant, and what is scored of a prompt.

    Every part is prefixed by its length, so that no two different views share a key. Prompts that differ in nothing
    that is scored have one key, as they have one score.
    """

    def __init__(self, secret: bytes, model_version: str, ladder: BudgetLadder) -> None:
        self._secret = sha256(secret).digest()
        self._bundle = [model_version, *(f"{rung.name}={rung.tokens}" for rung in ladder.rungs)]
        # The parts of the bundle and of the tenant are hashed once for all prompts.
        self._begun = lru_cache(TENANTS)(self._begin)

    def key(self, tenant: str, prompt: Prompt) -> bytes:
        """The key of a prompt's score, KEY_BYTES long; its first TENANT_BYTES are the tenant's."""
        owner, begun = self._begun(tenant)
        scored, keyed = view(prompt), begun.copy()
        keyed.update(_joined([scored.text]) + _counts(scored.counts))
        return owner + keyed.digest()

    def _begin(self, tenant: str) -> tuple[bytes, blake2b]:
        """The tenant's part of a key, and the hash of all that comes before the messages."""
        owner = blake2b(tenant.encode(), key=self._secret, digest_size=TENANT_BYTES).digest()
        begun = blake2b(_joined([*self._bundle, tenant]), key=self._secret, digest_size=KEY_BYTES - TENANT_BYTES)
        return owner, begun


@lru_cache(COUNTS)
def _counts(counts: tuple[int, ...]) -> bytes:
    return _joined([repr(counts)])


def _joined(parts: list[str]) -> bytes:
    encoded = [part.encode() for part in parts]
    return b"".join([piece for data in encoded for piece in (len(data).to_bytes(8, "big"), data)])
