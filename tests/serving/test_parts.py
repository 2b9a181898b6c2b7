"""The service that is really served, with some of its parts replaced."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from router import settings
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.admission.tenants import digest
from router.domain import Conversation, MaxLoss, Pinned, PinnedTurn, Score
from router.events import Decided, Degraded, TaskFailed
from router.ports import Classifier
from router.requests.limits import Limits
from router.routing.pins import CONVERSATIONS
from router.serving import app
from router.serving.parts import Parts
from router.telemetry.logs import Observers
from tests.rpc.conftest import PATIENCE, bearer, decide, generate, refusal
from tests.support.fakes import FakeClassifier, ListLog, RecordingObserver, at_once, score_of, until
from tests.support.valkey import Valkey

FOLLOW_SECONDS = 0.01


@asynccontextmanager
async def serving(directory: Path, replaced: Callable[[Parts], Parts], **given: Any) -> AsyncIterator[Any]:
    """A stub of the routing service."""
    defaults = {"listen": "127.0.0.1:0", "outcomes": directory / "outcomes.sqlite", "audit_file": directory / "audit"}
    async with (
        app.running(settings.load(**defaults | given), at_once, replaced, FOLLOW_SECONDS) as ports,
        grpc.aio.insecure_channel(f"127.0.0.1:{ports.port}") as channel,
    ):
        yield pb_grpc.BudgetRouterServiceStub(channel)


def observed(observer: RecordingObserver) -> Callable[[Parts], Parts]:
    """Parts whose records another observer sees, too."""
    return lambda parts: replace(parts, observer=Observers([parts.observer, observer]))


def classified_by(classifier: Classifier) -> Callable[[Parts], Parts]:
    """Parts whose models another classifier scores for."""

    def replaced(parts: Parts) -> Parts:
        served = [replace(m.served, scorer=replace(m.served.scorer, classifier=classifier)) for m in parts.models]
        models = [replace(model, served=one) for model, one in zip(parts.models, served, strict=True)]
        return replace(parts, models=models)

    return replaced


async def test_a_fake_classifier_decides(tmp_path: Path) -> None:
    classifier = FakeClassifier(score_of(0.1, 0.1, 0.1, 0.1, 0.1, 0.9))
    async with serving(tmp_path, classified_by(classifier)) as routing:
        decision = (await routing.Decide(decide("2 + 2 ="), timeout=PATIENCE)).decision
        assert [round(forecast.quality, 3) for forecast in decision.forecasts] == [0.1] * 5 + [0.9]
        classifier.failing = True
        decision = (await routing.Decide(decide("3 + 3 ="), timeout=PATIENCE)).decision
        assert (decision.rung, decision.source) == ("256", pb.DECISION_SOURCE_FALLBACK)
    assert [prompt.text for asked in classifier.asked for prompt in asked] == ["2 + 2 =", "3 + 3 ="]


async def test_a_fake_outcome_log_takes_what_happens(tmp_path: Path) -> None:
    log = ListLog()
    async with serving(tmp_path, lambda parts: replace(parts, outcomes=log)) as routing:
        events = [event async for event in routing.Generate(generate(), timeout=PATIENCE)]
        decision_id = events[0].decision.decision_id
        report = pb.ReportOutcomeRequest(decision_id=decision_id, correct=1, label_source=pb.LABEL_SOURCE_USER)
        await routing.ReportOutcome(report, timeout=PATIENCE)
        log.failing = True
        assert (await refusal(routing.ReportOutcome(report))).code is grpc.StatusCode.UNAVAILABLE
    assert [decision.id for _, decision in log.decided] == [decision_id]
    assert [outcome.decision_id for outcome in log.outcomes] == [decision_id]


async def test_a_window_joins_the_deltas_of_streams(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda parts: parts, stream_window_ms=1_000) as routing:
        asked = generate(options=pb.RoutingOptions(rung="64", min_thinking_tokens=64))
        events = [event async for event in routing.Generate(asked, timeout=PATIENCE)]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.count("reasoning") < 32 and (kinds[0], kinds[-1]) == ("decision", "completion")
    assert events[-1].completion.thinking_tokens == 64


async def test_other_limits_and_another_observer(tmp_path: Path) -> None:
    observer = RecordingObserver()

    def replaced(parts: Parts) -> Parts:
        return replace(observed(observer)(parts), limits=Limits(1, 8, MaxLoss(0.02)))

    async with serving(tmp_path, replaced) as routing:
        await routing.Decide(decide("12345678"), timeout=PATIENCE)
        assert (await refusal(routing.Decide(decide("123456789")))).fields == ["messages"]
    assert len(observer.of(Decided)) == 1


async def test_a_tenants_file_that_loses_its_last_key_does_not_open_the_service(tmp_path: Path) -> None:
    """On a public address; the start would have refused such a file."""
    path, observer = tmp_path / "tenants.toml", RecordingObserver()
    path.write_text(f'[one]\nkeys = [{{ sha256 = "{digest("a key")}" }}]\n')
    public = {"listen": "0.0.0.0:0", "public": ["plaintext"], "tenants": path}
    async with serving(tmp_path, observed(observer), **public) as routing:
        path.write_text("[one]\n[default]\n")
        await until(lambda: observer.of(Degraded))
        assert observer.of(Degraded)[0].dependency == "tenants"
        assert (await refusal(routing.Decide(decide()))).code is grpc.StatusCode.UNAUTHENTICATED
        assert (await routing.Decide(decide(), **bearer("a key"), timeout=PATIENCE)).decision.rung
        path.write_text(f'[one]\nkeys = [{{ sha256 = "{digest("another key")}" }}]\n')
        async with no_more(routing, "a key"):
            assert (await routing.Decide(decide(), **bearer("another key"), timeout=PATIENCE)).decision.rung


@asynccontextmanager
async def no_more(routing: Any, key: str) -> AsyncIterator[None]:
    """Once a key opens nothing any more."""
    for _ in range(1_000):
        try:
            await routing.Decide(decide(), **bearer(key), timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            break
    else:
        pytest.fail("the key still counts")
    yield


async def test_renewed_certificates_are_shown_and_unusable_ones_are_reported(tmp_path: Path) -> None:
    observer = RecordingObserver()

    def issue() -> bytes:
        """A certificate of a new authority, whose own it returns."""
        authority = trustme.CA()
        made = authority.issue_cert("localhost")
        made.private_key_pem.write_to_path(tmp_path / "server.key")
        made.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
        return authority.cert_pem.bytes()

    first = issue()
    loaded = settings.load(
        listen="127.0.0.1:0",
        outcomes=tmp_path / "outcomes.sqlite",
        audit_file=tmp_path / "audit",
        tls_certificate=tmp_path / "server.pem",
        tls_key=tmp_path / "server.key",
    )
    async with app.running(loaded, at_once, observed(observer), FOLLOW_SECONDS) as ports:
        assert await trusts(ports.port, first)
        second = issue()
        async with asyncio.timeout(PATIENCE):
            while not await trusts(ports.port, second):  # noqa: ASYNC110  what is waited for is a file
                await asyncio.sleep(FOLLOW_SECONDS)
        for name, spoil in SPOILT.items():
            for file in ("server.key", "server.pem"):
                reported = len(observer.of(Degraded))  # the new certificate may have been read before the new key
                mend = spoil(tmp_path / file)
                await until(lambda: len(observer.of(Degraded)) > reported)  # noqa: B023
                assert await trusts(ports.port, second), f"{file} is {name}: the last good ones count"
                assert not await answers_in_plaintext(ports.port)
                mend()
        assert {record.dependency for record in observer.of(Degraded)} == {"tls"}
        third = issue()
        async with asyncio.timeout(PATIENCE):
            while not await trusts(ports.port, third):  # noqa: ASYNC110
                await asyncio.sleep(FOLLOW_SECONDS)


def gone(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def broken(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def nonsense(file: Path) -> None:
    file.write_bytes(b"\xff\x00" * 1_000)


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def endless(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def restored(spoil: Callable[[Path], object]) -> Callable[[Path], Callable[[], None]]:
    """Spoils a file, and returns what restores it."""

    def spoilt(file: Path) -> Callable[[], None]:
        good = file.read_bytes()
        spoil(file)

        def mend() -> None:
            file.rmdir() if file.is_dir() else file.unlink(missing_ok=True)
            file.write_bytes(good)

        return mend

    return spoilt


SPOILT = {spoil.__name__: restored(spoil) for spoil in (gone, empty, broken, nonsense, fifo, folder, endless)}
"""Ways to spoil a file that is followed."""


async def answers_in_plaintext(port: int) -> bool:
    """True if a call without TLS gets an answer."""
    async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
        routing: Any = pb_grpc.BudgetRouterServiceStub(channel)
        try:
            return bool((await routing.Decide(decide(), timeout=PATIENCE)).decision.rung)
        except grpc.aio.AioRpcError:
            return False


@pytest.mark.parametrize("name", [*SPOILT, "without keys", "without tenants", "nested", "dotted"])
async def test_a_tenants_file_that_is_spoilt_keeps_the_service_closed(tmp_path: Path, name: str) -> None:
    """Also where nobody else can connect, and whatever comes after."""
    path, observer = tmp_path / "tenants.toml", RecordingObserver()
    text = {
        "without keys": "[one]\n",
        "without tenants": "# nobody\n",
        "nested": "a = " + "[" * 10_000,
        "dotted": "a." * 1_000_000 + "a = 1",
    }
    spoil = SPOILT.get(name) or restored(lambda file: file.write_text(text[name]))
    path.write_text(f'[one]\nkeys = [{{ sha256 = "{digest("a key")}" }}]\n')
    async with serving(tmp_path, observed(observer), tenants=path) as routing:
        mend = spoil(path)
        await until(lambda: bool(observer.of(Degraded)))
        assert (await refusal(routing.Decide(decide()))).code is grpc.StatusCode.UNAUTHENTICATED
        assert (await routing.Decide(decide(), **bearer("a key"), timeout=PATIENCE)).decision.rung
        mend()
        path.write_text(f'[one]\nkeys = [{{ sha256 = "{digest("another key")}" }}]\n')
        async with no_more(routing, "a key"):
            assert (await refusal(routing.Decide(decide()))).code is grpc.StatusCode.UNAUTHENTICATED
    assert not observer.of(TaskFailed)


async def trusts(port: int, authority: bytes) -> bool:
    """True if a new connection that trusts this authority alone gets an answer."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    credentials = grpc.ssl_channel_credentials(authority)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options) as channel:
        routing: Any = pb_grpc.BudgetRouterServiceStub(channel)
        try:
            return bool((await routing.Decide(decide(), timeout=PATIENCE)).decision.rung)
        except grpc.aio.AioRpcError:
            return False


async def test_a_background_task_that_dies_is_restarted_in_the_service(tmp_path: Path) -> None:
    observer, started = RecordingObserver(), []

    async def dies() -> None:
        started.append(1)
        raise RecursionError("nested too deeply")

    def replaced(parts: Parts) -> Parts:
        return replace(observed(observer)(parts), background={"dies": dies})

    async with serving(tmp_path, replaced) as routing:
        await until(lambda: len(started) >= 2)
        assert (await routing.Decide(decide(), timeout=PATIENCE)).decision.rung
    assert {record.task for record in observer.of(TaskFailed)} == {"dies"}


async def test_parts_show_no_secret(tmp_path: Path) -> None:
    shown: list[str] = []

    def replaced(parts: Parts) -> Parts:
        shown.append(repr(parts.endpoints))
        return parts

    async with serving(tmp_path, replaced, admin_token="open sesame", admin_listen="127.0.0.1:0"):
        assert "open sesame" not in shown[0]


@pytest.mark.slow
async def test_a_flood_of_one_tenants_conversations_drives_out_nobody_elses(tmp_path: Path) -> None:
    built: list[Parts] = []

    def kept(parts: Parts) -> Parts:
        built.append(parts)
        return parts

    async with serving(tmp_path, kept):
        [parts] = built
        ladder = parts.models[0].served.policy.ladder

        def turns(tenant: str, number: int, wanted: Pinned | None) -> list[PinnedTurn]:
            return [PinnedTurn(Conversation("pocket", tenant, str(i), ladder), None, wanted) for i in range(number)]

        await parts.pins.settle(turns("quiet", 1, Pinned(3)))
        await parts.pins.settle(turns("flood", CONVERSATIONS + 1, Pinned(1)))
        assert await parts.pins.settle(turns("quiet", 1, None)) == [Pinned(3)]
        assert await parts.pins.settle(turns("flood", 1, None)) == [None]


async def test_two_services_that_share_a_redis_give_a_conversation_one_rung(tmp_path: Path, valkey: Valkey) -> None:
    built: list[Parts] = []
    shared: dict[str, Any] = {"redis_url": valkey.url, "cache_secret": "s", "redis_timeout": 0.5}
    hard, easy = score_of(0.1, 0.1, 0.1, 0.1, 0.1, 0.9), score_of(*[0.9] * 6)

    def scoring(name: str, score: Score) -> AbstractAsyncContextManager[Any]:
        def replaced(parts: Parts) -> Parts:
            built.append(classified_by(FakeClassifier(score))(parts))
            return built[-1]

        (tmp_path / name).mkdir()
        return serving(tmp_path / name, replaced, **shared)

    async def turn(service: Any, number: int, talk: str = "talk") -> tuple[str, int]:
        options = pb.RoutingOptions(conversation_id=talk)
        decision = (await service.Decide(decide(str(number), options=options), timeout=PATIENCE)).decision
        return decision.rung, decision.source

    kept = "256", pb.DECISION_SOURCE_PINNED
    async with scoring("one", hard) as one, scoring("other", easy) as other:
        assert await turn(one, 0) == ("256", pb.DECISION_SOURCE_CLASSIFIER)
        assert await turn(other, 1) == kept
        assert await turn(other, 2, "another") == ("0", pb.DECISION_SOURCE_CLASSIFIER)
        await built[0].cache.flush()
        assert await turn(one, 3) == kept, "a flush drops scores alone"
        valkey.kill()
        for number in range(4, 8):
            assert [await turn(one, number), await turn(other, number)] == [kept, kept]
        assert [parts.failing()["pins"] for parts in built] == [True, True]
