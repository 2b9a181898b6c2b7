"""Keys of scores in the cache. A key is a keyed hash, so prompt text never leaves the process."""

from hashlib import blake2b, sha256
from unicodedata import normalize

from router.domain import BudgetLadder, Prompt


class ScoreKeys:
    """Keys for one model bundle: keyed BLAKE2b of bundle digest, ladder, tenant, canonical messages.

    Every part is prefixed by its length, so that no two different requests share a key; text is compared in
    Unicode normal form C.
    """

    def __init__(self, secret: bytes, model_version: str, ladder: BudgetLadder) -> None:
        parts = [model_version, *(f"{rung.name}={rung.tokens}" for rung in ladder.rungs)]
        self._keyed = blake2b(_joined(parts), key=sha256(secret).digest(), digest_size=32)

    def key(self, tenant: str, prompt: Prompt) -> bytes:
        """The 32-byte key of a prompt's score."""
        keyed = self._keyed.copy()  # the bundle's part is hashed once for all prompts
        parts = [tenant]
        for message in prompt.messages:
            # NFC: the same text, however it was typed, has one key, as it has one score.
            parts += message.role.value, normalize("NFC", message.content)
            if message.tool_calls or message.tool_call_id or message.images:
                parts.append(repr((message.tool_calls, message.tool_call_id, message.images)))
        keyed.update(_joined(parts))
        return keyed.digest()


def _joined(parts: list[str]) -> bytes:
    encoded = [part.encode() for part in parts]
    return b"".join([piece for data in encoded for piece in (len(data).to_bytes(8, "big"), data)])
