"""What conversations keep, shared by several replicas in Redis; while it is down each replica knows its own.

One Lua script settles the turns of a tenant, since Redis runs a script as a whole: two first turns of a conversation at
two replicas get one pin. Each tenant has a bound of its own: a flood of conversations drives out the flooder's alone.
"""

from collections.abc import Awaitable, Sequence
from itertools import groupby
from typing import Any

from router.domain import Conversation, Pinned, PinnedTurn
from router.errors import PinError
from router.events import Degraded
from router.ports import Observer
from router.redis.calls import RedisCalls
from router.redis.client import AnyRedis
from router.routing.pin_entries import MOST_BYTES, PinEntries
from router.routing.pins import CONVERSATIONS, SECONDS, MemoryPins

TURNS = 128
"""Most turns that are settled in one round trip: a batch may hold more than Redis can settle in time."""

FOREIGN = "pin entries"
"""The dependency in Degraded, for entries that no replica with this secret wrote."""

# KEYS: entries (a hash), ends (a sorted set). ARGV: lifetime, most entries, then field, seen and wanted entry of each
# turn; "" = none. Time is the server's own, since the replicas' clocks differ. An entry lives as long as its end lies
# ahead. A value that somebody else made huge is not read. Few entries are removed at a time, but more than came.
SETTLE = f"""
local time = redis.call('TIME')
local now, lifetime, most = time[1] + time[2] / 1e6, tonumber(ARGV[1]), tonumber(ARGV[2])
local answers, room = {{}}, 2 * (#ARGV - 2) / 3
for i = 3, #ARGV, 3 do
  local field, seen, wanted, kept = ARGV[i], ARGV[i + 1], ARGV[i + 2], ''
  if tonumber(redis.call('ZSCORE', KEYS[2], field) or 0) > now
    and redis.call('HSTRLEN', KEYS[1], field) <= {MOST_BYTES} then
    kept = redis.call('HGET', KEYS[1], field) or ''
  end
  if wanted ~= '' and (kept == '' or kept == seen) then
    if kept ~= wanted then redis.call('HSET', KEYS[1], field, wanted) end
    kept = wanted
  end
  if kept ~= '' then redis.call('ZADD', KEYS[2], now + lifetime, field) end
  answers[#answers + 1] = kept
end
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, room)
local beyond = redis.call('ZCARD', KEYS[2]) - most
if #gone == 0 and beyond > 0 then gone = redis.call('ZRANGE', KEYS[2], 0, math.min(beyond, room) - 1) end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('ZREM', KEYS[2], unpack(gone))
end
redis.call('EXPIRE', KEYS[1], lifetime)
redis.call('EXPIRE', KEYS[2], lifetime)
return answers
"""


class RedisPins:
    """One set of conversations per tenant for all replicas; a turn is settled in one round trip.

    Args:
        timeout: seconds for a call.
        near: what this process has seen; it serves alone while Redis is down, and restores what Redis has lost.
        most: conversations that are kept of each tenant.
        seconds: time after its last turn at which a conversation is forgotten.
    """

    def __init__(
        self,
        redis: AnyRedis,
        entries: PinEntries,
        timeout: float,
        near: MemoryPins,
        observer: Observer,
        most: int = CONVERSATIONS,
        seconds: float = SECONDS,
    ) -> None:
        self._redis = redis
        self._entries = entries
        self._bounded = RedisCalls(timeout, PinError)
        self._near = near
        self._observer = observer
        self._limits = int(seconds), most
        self.breaker = self._bounded.breaker

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def known(self, conversation: Conversation) -> Pinned | None:
        """What this process has last seen a conversation keep; None = nothing."""
        return self._near.known(conversation)

    async def settle(self, turns: Sequence[PinnedTurn]) -> list[Pinned | None]:
        """What each conversation keeps from its turn on, in order."""
        settled: list[Pinned | None] = []
        for begin in range(0, len(turns), TURNS):
            few = turns[begin : begin + TURNS]
            try:
                settled += await self._shared(few)
            except PinError as error:
                self._observer(Degraded("pins", str(error)))
                settled += await self._near.settle(few)
        return settled

    async def _shared(self, turns: Sequence[PinnedTurn]) -> list[Pinned | None]:
        """The same, from Redis. Raises PinError."""
        self._bounded.check()
        fields = [self._entries.field(turn.conversation) for turn in turns]
        seen = [self._entries.encode(field, turn.seen) for field, turn in zip(fields, turns, strict=True)]
        entries = await self._asked(turns, fields, seen)
        kept = [self._entries.decode(*one) for one in zip(fields, entries, strict=True)]
        if foreign := [i for i, entry in enumerate(entries) if entry and kept[i] is None]:
            error = f"{len(foreign)} of {len(turns)} entries have no valid seal: they are replaced"
            self._observer(Degraded(FOREIGN, error))
            theirs = [turns[i] for i in foreign], [fields[i] for i in foreign], [entries[i] for i in foreign]
            for i, entry in zip(foreign, await self._asked(*theirs), strict=True):
                kept[i] = self._entries.decode(fields[i], entry)
        for turn, pinned in zip(turns, kept, strict=True):
            if pinned is not None:
                self._near.keep(turn.conversation, pinned)
        return kept

    async def _asked(self, turns: Sequence[PinnedTurn], fields: Sequence[bytes], seen: Sequence[bytes]) -> list[bytes]:
        """Entries in the order of the turns, settled tenant by tenant in one round trip. Raises PinError."""
        by_tenant = sorted(range(len(turns)), key=lambda i: turns[i].conversation.tenant)
        pipeline: Any = self._redis.pipeline(transaction=False)
        for tenant, places in groupby(by_tenant, key=lambda i: turns[i].conversation.tenant):
            arguments: list[bytes] = []
            for i in places:
                arguments += fields[i], seen[i], self._entries.encode(fields[i], turns[i].wanted)
            pipeline.eval(SETTLE, 2, *self._entries.keys(tenant), *self._limits, *arguments)
        asked: Awaitable[list[list[bytes]]] = pipeline.execute()
        answered = [entry for answer in await self._bounded(asked) for entry in answer]
        return [entry for _, entry in sorted(zip(by_tenant, answered, strict=True))]
