"""The outcome log that several replicas share: a Redis stream of bounded length, and each decision by its id.

The stream holds decisions, ends of generations and outcomes, each as a row of its own: replicas only append, so none
has to wait for another. `read_rows` joins the rows of a decision; of a column that occurs twice the last value counts.
"""

import asyncio
import json
from collections.abc import Awaitable, Iterator
from typing import Any, TypeVar

import structlog

from router.domain import Completion, Decision, LoggedDecision, Outcome, RouteRequest
from router.errors import OutcomeLogError
from router.outcomes import rows
from router.outcomes.rows import LogEntry, PromptHasher, Row
from router.outcomes.write_behind import WriteBehind
from router.ports import Observer
from router.redis.calls import FAILURES
from router.redis.client import AnyRedis, connect

STREAM, DECISION = "budget_router:outcomes", "budget_router:decision:"
KEPT_SECONDS = 30 * 86_400
"""Longest time between a decision and its outcome."""

PAGE = 10_000
"""Rows that one call reads."""

LARGEST = 8 << 20
"""Most bytes that are read of a decision."""

T = TypeVar("T")


class RedisOutcomes:
    """Appends to a stream of about `length` rows; each call to Redis ends within `timeout` seconds.

    Args:
        buffer: entries that may wait to be written; more are dropped, and observed.
    """

    def __init__(
        self,
        redis: AnyRedis,
        observer: Observer,
        names: PromptHasher,
        length: int,
        timeout: float,
        buffer: int = 10_000,
    ) -> None:
        self._redis: Any = redis
        self._names = names
        self._length = length
        self._timeout = timeout
        self._behind = WriteBehind(self._write, observer, buffer, owner=LogEntry.owner, weigh=LogEntry.weight)

    def record(self, request: RouteRequest, decision: Decision, completion: Completion | None) -> None:
        """Append a decision, or the end of its generation, a moment later; never waits."""
        self._behind.add(LogEntry.now(request, decision, completion))

    @property
    def failing(self) -> bool:
        """True while nothing can be written."""
        return self._behind.failing

    async def report(self, outcome: Outcome) -> bool:
        """Append an outcome, at once. False if the decision is unknown. Raises OutcomeLogError."""
        await self._behind.flush()
        found = await self._found(outcome.decision_id)
        if found is None or outcome.tenant not in (None, found.get("tenant")):
            return False
        await self._bounded(self._added(self._redis, outcome.decision_id, rows.reported(outcome)))
        return True

    async def find(self, decision_id: str) -> LoggedDecision | None:
        """A decision with its tenant, and its prompt if the log keeps it; None if unknown. Raises OutcomeLogError."""
        await self._behind.flush()
        found = await self._found(decision_id)
        return None if found is None else rows.restored(found)

    async def close(self) -> None:
        """Write all waiting entries, then close the connections. Raises DrainError where some could not be written."""
        try:
            await self._behind.close()
        finally:
            await self._redis.aclose()

    async def _found(self, decision_id: str) -> Row | None:
        """The row of a decision; None if unknown. Raises OutcomeLogError."""
        # Not GET: another writer could put any size there.
        data: bytes = await self._bounded(self._redis.getrange(DECISION + decision_id, 0, LARGEST))
        if data and (row := _row(data)) is None:
            raise OutcomeLogError(f"Redis: decision {decision_id} is damaged")
        return row if data else None

    async def _write(self, batch: list[LogEntry]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for event in batch:
            row = event.row(self._names)
            if event.completion is None:
                pipeline.set(DECISION + event.decision.id, json.dumps(row), ex=KEPT_SECONDS)
            self._added(pipeline, event.decision.id, row)
        await self._bounded(pipeline.execute())

    def _added(self, redis: Any, decision_id: str, row: Row) -> Any:
        fields = {"id": decision_id, "row": json.dumps(row)}
        # Approximate: Redis drops whole nodes of its radix tree, which costs much less than an exact length.
        return redis.xadd(STREAM, fields, maxlen=self._length, approximate=True)

    async def _bounded(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except (TimeoutError, *FAILURES) as error:
            raise OutcomeLogError(f"Redis: {type(error).__name__}") from error


def read_rows(url: str, timeout: float = 30.0, page: int = PAGE) -> Iterator[Row]:
    """All rows of a log, in the order of the decisions; `page` rows a call. Entries that are no rows are left out.

    Raises:
        OutcomeLogError, SettingsError
    """
    yield from asyncio.run(_read_rows(connect(url, timeout), page))


async def _read_rows(redis: Any, size: int) -> list[Row]:
    found: dict[bytes, Row] = {}
    last, damaged = "-", 0
    try:
        while page := await redis.xrange(STREAM, last, "+", size):
            for entry, fields in page:
                last = f"({entry.decode()}"
                row, identity = _row(fields.get(b"row", b"")), fields.get(b"id", b"")
                if row is None or not identity:
                    damaged += 1
                else:
                    found.setdefault(identity, dict.fromkeys(rows.FIELDS)).update(row)
    except FAILURES as error:
        raise OutcomeLogError(f"Redis: {type(error).__name__}") from error
    finally:
        await redis.aclose()
    if damaged:
        structlog.get_logger().warning("entries of the outcome log left out", entries=damaged)
    return [row for row in found.values() if row["decision_id"] is not None]


def _row(data: bytes) -> Row | None:
    """A row from JSON; None where it is damaged, or is none."""
    try:
        row = json.loads(data)
    except (ValueError, RecursionError):
        return None
    known = isinstance(row, dict) and row.keys() <= set(rows.FIELDS)
    return (
        row if known and all(value is None or isinstance(value, str | int | float) for value in row.values()) else None
    )
