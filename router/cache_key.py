"""Names of scores in the cache. Prompt text never leaves the process: a key is a keyed hash."""

import hmac
from hashlib import sha256
from unicodedata import normalize

from router.domain import BudgetLadder, Prompt


class ScoreKeys:
    """Keys for one model bundle: HMAC(tenant, bundle digest, ladder, canonical messages).

    Every part is prefixed by its length, so that no two different requests share a key; text is compared in
    Unicode normal form C.
    """

    def __init__(self, secret: bytes, model_version: str, ladder: BudgetLadder) -> None:
        self._keyed = hmac.new(secret, digestmod=sha256)
        self._add(self._keyed, model_version)
        for rung in ladder.rungs:
            self._add(self._keyed, f"{rung.name}={rung.tokens}")

    def key(self, tenant: str, prompt: Prompt) -> bytes:
        """The 32-byte key of a prompt's score."""
        keyed = self._keyed.copy()
        self._add(keyed, tenant)
        for message in prompt.messages:
            self._add(keyed, message.role.value)
            self._add(keyed, normalize("NFC", message.content))
            if message.tool_calls or message.tool_call_id or message.images:
                self._add(keyed, repr((message.tool_calls, message.tool_call_id, message.images)))
        return keyed.digest()

    @staticmethod
    def _add(keyed: hmac.HMAC, part: str) -> None:
        data = part.encode()
        keyed.update(len(data).to_bytes(8, "big"))
        keyed.update(data)
