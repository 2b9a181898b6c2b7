"""The outcome log of several replicas: a stream in a real server, and a server that goes away."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from router.domain import Completion, Decision, LabelSource, Outcome, Prompt
from router.errors import DrainError, OutcomeLogError
from router.events import Degraded, RecordsLost
from router.outcomes.redis import DECISION, LARGEST, PAGE, STREAM, RedisOutcomes, read_rows
from router.outcomes.rows import PromptHasher
from router.redis.client import connect
from tests.support.fakes import RecordingObserver, completion_of, decision_of, request_of
from tests.support.log_entries import UNWRITABLE, recorded_among_others
from tests.support.valkey import Valkey
from training.data.export_log import frame

NAMES = PromptHasher(b"shared", texts=True)
TIMEOUT = 0.5


def log_on(valkey: Valkey, observer: RecordingObserver | None = None, length: int = 10_000) -> RedisOutcomes:
    redis = connect(valkey.url, TIMEOUT)
    return RedisOutcomes(redis, observer or RecordingObserver(), NAMES, length, TIMEOUT)


@pytest.fixture
async def log(valkey: Valkey) -> AsyncIterator[RedisOutcomes]:
    log = log_on(valkey)
    yield log
    await log.close()


async def told(valkey: Valkey, page: int = PAGE) -> list[dict[str, object]]:
    return [dict(row) for row in await asyncio.to_thread(lambda: list(read_rows(valkey.url, page=page)))]


async def test_decisions_ends_and_outcomes_of_several_replicas_come_together(valkey: Valkey) -> None:
    one, other = log_on(valkey), log_on(valkey)
    one.record(request_of("2 + 2 ="), decision_of("a"), None)
    one.record(request_of("2 + 2 ="), decision_of("a"), completion_of(thinking_tokens=40))
    await one.close()
    for correct in (0.0, 0.5):
        assert await other.report(Outcome("a", correct, LabelSource.USER))
    await other.close()
    [row] = await told(valkey)
    assert (row["prompt"], row["rung"], row["thinking_tokens"], row["correct"]) == ("2 + 2 =", "128", 40, 0.5)
    found = frame(await asyncio.to_thread(lambda: list(read_rows(valkey.url))))
    assert found["decision_id"].to_list() == ["a"]


async def test_an_unknown_decision_is_reported(log: RedisOutcomes) -> None:
    assert not await log.report(Outcome("no-such", 1.0, LabelSource.USER))
    assert await log.find("no-such") is None


async def test_a_decision_is_found_as_it_was_made(log: RedisOutcomes) -> None:
    decision = decision_of("a")
    log.record(request_of("2 + 2 ="), decision, None)
    assert await log.find("a") == ("default", decision, Prompt.of("2 + 2 ="), ())


async def test_the_stream_stays_bounded(valkey: Valkey) -> None:
    log = log_on(valkey, length=200)
    for i in range(2_000):
        log.record(request_of(), decision_of(f"d{i}"), None)
        if i % 100 == 0:
            await asyncio.sleep(0.01)
    await log.close()
    client: Redis = Redis.from_url(valkey.url)
    assert 200 <= await client.xlen(STREAM) < 600
    await client.aclose()


async def test_pages_are_read_to_the_end(valkey: Valkey) -> None:
    log = log_on(valkey)
    for i in range(50):
        log.record(request_of(), decision_of(f"d{i}"), None)
    await log.close()
    assert [row["decision_id"] for row in await told(valkey, page=7)] == [f"d{i}" for i in range(50)]


async def test_a_server_that_is_gone_drops_records_and_refuses_reports(valkey: Valkey) -> None:
    observer = RecordingObserver()
    log = log_on(valkey, observer)
    log.record(request_of(), decision_of("a"), None)
    await asyncio.sleep(0.1)
    valkey.kill()
    log.record(request_of(), decision_of("b"), None)
    with pytest.raises(OutcomeLogError):
        await log.report(Outcome("a", 1.0, LabelSource.USER))
    with pytest.raises(DrainError, match=r"lost: [12]"):
        await log.close()
    assert observer.of(Degraded)[0].dependency == "outcomes"
    assert [lost.cause for lost in observer.of(RecordsLost)] == ["exit"]
    with pytest.raises(OutcomeLogError):
        await told(valkey)


@pytest.mark.parametrize("entry", UNWRITABLE, ids=lambda entry: entry[0])
async def test_a_row_that_cannot_be_written_costs_itself_alone(
    valkey: Valkey, entry: tuple[str, Decision, Completion | None]
) -> None:
    observer = RecordingObserver()
    log = log_on(valkey, observer)
    await recorded_among_others(log, entry)
    await log.close()
    assert {row["decision_id"] for row in await told(valkey)} >= {"a", "b", "c", "d"}
    assert [(lost.cause, lost.records) for lost in observer.of(RecordsLost)] == [("unwritable", 1)]


async def test_a_server_that_hangs_is_an_error_in_time(valkey: Valkey, log: RedisOutcomes) -> None:
    log.record(request_of(), decision_of("a"), None)
    await log.report(Outcome("a", 1.0, LabelSource.USER))
    valkey.pause()
    async with asyncio.timeout(3 * TIMEOUT):
        with pytest.raises(OutcomeLogError, match="TimeoutError"):
            await log.report(Outcome("a", 1.0, LabelSource.USER))
    valkey.resume()


DAMAGED = [b"", b"{", b"[]", b"3", b"\xff", b'{"tenant": []}', b'{"no such column": 1}', b"[" * 100_000, b"null"]


@pytest.mark.parametrize("entry", DAMAGED[1:])
async def test_a_damaged_decision_is_an_error_by_name(log: RedisOutcomes, valkey: Valkey, entry: bytes) -> None:
    async with Redis.from_url(valkey.url) as server:
        await server.set(f"{DECISION}a", entry)
    for call in (log.report(Outcome("a", 1.0, LabelSource.USER, "search")), log.find("a")):
        with pytest.raises(OutcomeLogError, match=r"is damaged|cannot be read"):
            await call


async def test_half_a_decision_is_an_error_by_name(log: RedisOutcomes, valkey: Valkey) -> None:
    async with Redis.from_url(valkey.url) as server:
        await server.set(f"{DECISION}a", b'{"tenant": "search"}')
    with pytest.raises(OutcomeLogError, match="cannot be read"):
        await log.find("a")


async def test_of_a_huge_decision_little_is_fetched(log: RedisOutcomes, valkey: Valkey) -> None:
    async with Redis.from_url(valkey.url) as server:
        await server.setrange(f"{DECISION}a", 200 << 20, b"x")
        with pytest.raises(OutcomeLogError):
            await log.find("a")
        assert (await server.info("stats"))["total_net_output_bytes"] < 2 * LARGEST


async def test_a_damaged_entry_costs_itself_alone(log: RedisOutcomes, valkey: Valkey) -> None:
    log.record(request_of("2 + 2 ="), decision_of("a"), None)
    await log.report(Outcome("a", 1.0, LabelSource.USER))
    async with Redis.from_url(valkey.url) as server:
        for entry in DAMAGED:
            await server.xadd(STREAM, {"id": "a", "row": entry})
        await server.xadd(STREAM, {"row": b"{}"})
        await server.xadd(STREAM, {"other": b"{}"})
    [row] = await told(valkey)
    assert (row["decision_id"], row["correct"]) == ("a", 1.0)
