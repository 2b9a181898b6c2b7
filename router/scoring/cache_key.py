"""Keys of scores in the cache. A key is a keyed hash, so prompt text never leaves the process."""

from functools import lru_cache
from hashlib import blake2b, sha256

from router.bundle.features import MAX_CHARACTERS
from router.bundle.normal_form import normal_form
from router.domain import BudgetLadder, Message, Prompt

TENANT_BYTES = 8
"""The beginning of a key, which is the same for all prompts of a tenant: caches share their room fairly by it."""

KEY_BYTES = 32
TENANTS = 1_024
"""Tenants whose part of the hash is remembered."""


class ScoreKeys:
    """Keys for one model bundle: keyed BLAKE2b of bundle digest, ladder, tenant, messages.

    Every part is prefixed by its length, so that no two different requests share a key. The text that is scored is
    compared in Unicode normal form C, all else as it was sent: to hash is cheap, however long and strange a text is.
    """

    def __init__(self, secret: bytes, model_version: str, ladder: BudgetLadder) -> None:
        self._secret = sha256(secret).digest()
        self._bundle = [model_version, *(f"{rung.name}={rung.tokens}" for rung in ladder.rungs)]
        # The parts of the bundle and of the tenant are hashed once for all prompts.
        self._begun = lru_cache(TENANTS)(self._begin)

    def key(self, tenant: str, prompt: Prompt) -> bytes:
        """The key of a prompt's score, KEY_BYTES long; its first TENANT_BYTES are the tenant's."""
        owner, begun = self._begun(tenant)
        keyed, scored = begun.copy(), prompt.text
        parts: list[str] = []
        # The same text, however it was typed, has one key, as it has one score.
        normal = normal_form(scored[:MAX_CHARACTERS]) + scored[MAX_CHARACTERS:]
        for message in prompt.messages:
            content = message.content
            parts += message.role.value, normal if content == scored else content
            if message.tool_calls or message.tool_call_id or message.images:
                parts += _beside_text(message)
        keyed.update(_joined(parts))
        return owner + keyed.digest()

    def _begin(self, tenant: str) -> tuple[bytes, blake2b]:
        """The tenant's part of a key, and the hash of all that comes before the messages."""
        owner = blake2b(tenant.encode(), key=self._secret, digest_size=TENANT_BYTES).digest()
        begun = blake2b(_joined([*self._bundle, tenant]), key=self._secret, digest_size=KEY_BYTES - TENANT_BYTES)
        return owner, begun


def _beside_text(message: Message) -> list[str]:
    """A message's images and tool calls; the numbers in front, which no role is called, keep them apart from turns."""
    calls = [part for call in message.tool_calls for part in (call.id, call.name, call.arguments)]
    return [f"{len(message.tool_calls)} {len(message.images)}", message.tool_call_id, *calls, *message.images]


def _joined(parts: list[str]) -> bytes:
    encoded = [part.encode() for part in parts]
    return b"".join([piece for data in encoded for piece in (len(data).to_bytes(8, "big"), data)])
