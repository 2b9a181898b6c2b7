"""Verification: what is served, what is refused, and what is said about it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from router.backends import canary
from router.backends.canary import Finding
from router.backends.connect import Connection, connect
from router.backends.http import Timeouts
from router.backends.verified import EnforcementStrategy, VerifiedBackend
from router.domain import Enforcement
from router.errors import BackendBusy, BackendError, BackendMisconfigured, BackendTimeout, BackendUnavailable
from tests.support.fakes import FakeBackend
from tests.support.ports import free_port
from tests.support.simulators import ENGINES, MODEL, simulated
from tests.support.sockets import Raw, listening

KINDS = tuple(ENGINES)
HASTY = Timeouts(connect=1.0, first=1.0, idle=0.5, total=5.0, question=1.0)


@asynccontextmanager
async def connected(kind: str, url: str, model: str = MODEL) -> AsyncIterator[tuple[VerifiedBackend, list[Finding]]]:
    """A backend, and the findings of its canary."""
    findings: list[Finding] = []
    watched = partial(canary.holds_budgets, watch=findings.append)
    async with AsyncExitStack() as stack:
        yield connect(Connection(kind, url, model, timeouts=HASTY), watched, stack), findings


async def why_not(kind: str, url: str, model: str = MODEL) -> tuple[str, list[Finding]]:
    """Why a backend is not served, and what its canary has found."""
    async with connected(kind, url, model) as (backend, findings):
        with pytest.raises(BackendError) as caught:
            await backend.prove()
        assert not await backend.ready() and not backend.proved
    return str(caught.value), findings


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_an_address_may_end_in_v1(suffix: str) -> None:
    async with simulated("vllm") as engine, connected("vllm", engine.url + suffix) as (backend, findings):
        assert (await backend.prove()).endswith("/native")
        assert await backend.ready() and backend.proved
    checks = [finding.check for finding in findings]
    assert checks == ["ready", "budget 0", "budget 64", "budget 8", "at least 48", "speed"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_name_is_told_with_what_is_served(kind: str) -> None:
    async with simulated(kind) as engine:
        why, _ = await why_not(kind, engine.url, "another")
    assert why == f"backend: it serves {MODEL}; not another"


async def test_an_engine_that_serves_nothing_yet_says_so() -> None:
    async with simulated("vllm") as engine:
        engine.served = False
        assert "it serves no model yet; not tiny" in (await why_not("vllm", engine.url))[0]


async def test_an_engine_that_does_not_answer_says_so() -> None:
    assert "cannot be reached" in (await why_not("vllm", f"http://127.0.0.1:{free_port()}"))[0]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("404 Not Found", "it has no /v1/models \\(HTTP 404\\)"),
        ("503 Loading", "HTTP 503"),
        ("302 Found", "redirects"),
        ("500 No", "HTTP 500"),
    ],
)
async def test_an_engine_without_a_list_of_models_says_which_status(status: str, says: str) -> None:
    raw = Raw(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
    async with listening(raw) as engine, connected("vllm", engine.url) as (backend, _):
        with pytest.raises(BackendUnavailable, match=says):
            await backend.prove()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_not_worth_waiting_for(status: int) -> None:
    raw = Raw(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
    async with listening(raw) as engine, connected("vllm", engine.url) as (backend, _):
        with pytest.raises(BackendMisconfigured, match="it refuses the key") as caught:
            await backend.prove()
    assert caught.value.setting == "key"


async def test_names_of_models_do_not_spoil_a_log() -> None:
    names = ", ".join(f'{{"id": "evil\\n{number}{"x" * 1_000}"}}' for number in range(100))
    body = f'{{"data": [{names}]}}'.encode()
    async with listening(Raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)) as engine:
        why, _ = await why_not("vllm", engine.url)
    assert len(why) < 1_000 and "\n" not in why and "..." in why


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama_cpp"])
async def test_what_two_phases_miss_is_named(kind: str) -> None:
    """The engine ignores budgets, and cannot tokenise: the finding says so, not that it does not answer."""
    async with simulated(kind, ignores_budget=True, no_tokens=True) as engine:
        _, findings = await why_not(kind, engine.url)
    assert "tokenize (HTTP 404)" in next(finding.seen for finding in findings[1:] if finding.check == "ready")


async def test_two_health_checks_run_one_canary() -> None:
    engine, runs = FakeBackend(), 0

    async def identity(_: Enforcement) -> str:
        return "same"

    async def slow(_: canary.Examined) -> bool:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        return True

    strategy = EnforcementStrategy(Enforcement.NATIVE, engine, engine)
    backend = VerifiedBackend([strategy], None, engine.check_ready, identity, slow)
    assert await asyncio.gather(*(backend.ready() for _ in range(4))) == [True] * 4
    assert runs == 1 and backend.proved


@pytest.mark.parametrize(
    ("failure", "ready", "runs"),
    [(BackendBusy("full", 7), True, 1), (BackendTimeout("slow"), False, 1), (BackendUnavailable("gone"), False, 2)],
)
async def test_only_an_engine_that_went_away_is_proved_again(failure: BackendError, ready: bool, runs: int) -> None:
    """One that is slow or full for a moment would be away for as long as its canary takes."""
    engine, ran, failures = FakeBackend(), 0, list[BackendError]()

    async def check() -> None:
        if failures:
            raise failures.pop()

    async def identity(_: Enforcement) -> str:
        return "same"

    async def passes(_: canary.Examined) -> bool:
        nonlocal ran
        ran += 1
        return True

    backend = VerifiedBackend([EnforcementStrategy(Enforcement.NATIVE, engine, engine)], None, check, identity, passes)
    await backend.prove()
    failures.append(failure)
    assert await backend.ready() is ready
    assert await backend.ready() and ran == runs


async def test_every_finding_is_seen_as_it_comes() -> None:
    seen: list[str] = []
    engine = FakeBackend()
    assert not await canary.holds_budgets(engine, lambda finding: seen.append(f"{finding.check} {len(engine.asked)}"))
    assert seen[:2] == ["ready 0", "budget 0 1"], "not all at the end"
