"""Requests that were answered before: the same bytes get the same decision again, under an id of its own.

Reading a request, checking it, choosing and writing the reply take longer than all the rest of a call. What is kept of
a request is a keyed hash of its bytes: its text is not.
"""

import secrets
from hashlib import blake2b
from operator import itemgetter
from typing import NamedTuple

from router._gen import budget_router_pb2 as pb
from router.admission.identity import Call
from router.domain import Decision, RouteRequest, RoutingOptions
from router.fair_lru import FairLru
from router.routing.deciding import Circumstances, Decider
from router.rpc.conversations import read_prompt

REMEMBERED = 4_096
"""Requests that are remembered, in some 2 KB each."""

LONGEST = 16 << 10
"""Bytes of the longest request that is remembered: hashing takes time for requests that are new, too."""

Key = tuple[str | None, bytes]
"""The caller, and the hash of its request."""


class _Answer(NamedTuple):
    """A decision, what it was about beside a prompt, and the reply before and behind its id."""

    circumstances: Circumstances
    options: RoutingOptions
    tenant: str
    model: str
    decision: Decision
    before: bytes
    behind: bytes


class Repeats:
    """Remembers answers to Decide, fairly between callers, and gives them again while the same would be decided."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self._secret = secrets.token_bytes(32)
        self._answers: FairLru[Key, _Answer] = FairLru(REMEMBERED, itemgetter(0))

    def key(self, data: bytes, call: Call) -> Key | None:
        """What a request is remembered by; None where it is too long."""
        if len(data) > LONGEST:
            return None
        return call.tenant, blake2b(data, key=self._secret, digest_size=16).digest()

    def reply(self, key: Key | None, circumstances: Circumstances, data: bytes) -> bytes | None:
        """The reply to a request that was answered before under the same circumstances; None where there is none."""
        known: _Answer | None = None if key is None else self._answers.get(key)
        if known is None or known.circumstances != circumstances:
            return None
        prompt = read_prompt(pb.DecideRequest.FromString(data).messages)
        request = RouteRequest(prompt, known.options, known.tenant, known.model)
        return known.before + self._decider.again(request, known.decision).id.encode() + known.behind

    def remember(
        self, key: Key | None, circumstances: Circumstances, request: RouteRequest, decision: Decision, reply: bytes
    ) -> None:
        """Keep an answer, where the same request would get the same one under the same circumstances."""
        if key is not None and self._decider.repeats(request, decision):
            before, _, behind = reply.partition(decision.id.encode())
            options, tenant, model = request.options, request.tenant, request.model
            self._answers[key] = _Answer(circumstances, options, tenant, model, decision, before, behind)
