"""The doctor finds what a backend gets wrong."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

from router.backends import canary
from router.backends.canary import LARGE, PROBES, SMALL, Examined, Finding
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.backends.probes import BUSY_TRIES
from router.domain import GenerationEvent, GenerationRequest, ReasoningDelta
from router.errors import BackendBusy, BackendError, BackendUnavailable
from tests.support.fakes import FakeBackend, completion_of


async def findings(backend: Examined) -> list[Finding]:
    return [finding async for finding in canary.examine(backend)]


class Spending(FakeBackend):
    """Thinks for as many tokens as it likes, whatever was asked."""

    def __init__(self, used: int | None) -> None:
        super().__init__()
        self._used = used

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        self.asked.append(request)
        yield completion_of(request.budget, thinking_tokens=self._used)


class Floorless:
    """Another backend without floors."""

    def __init__(self, backend: Examined) -> None:
        self._backend = backend
        self.ready, self.check_ready = backend.ready, backend.check_ready

    def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        return self._backend.stream(replace(request, min_thinking_tokens=0))


async def test_a_backend_that_holds_its_budgets_passes(pocket_model: PocketModel) -> None:
    backend = PocketBackend(pocket_model)
    assert [f for f in await findings(backend) if not f.passed] == []
    backend.close()


async def test_every_budget_and_a_floor_are_tried() -> None:
    backend = FakeBackend()
    found = await findings(backend)
    assert [request.budget.tokens for request in backend.asked] == [0, *[LARGE] * len(PROBES), SMALL, LARGE]
    assert backend.asked[-1].min_thinking_tokens > 0
    assert len(found) == 6


async def test_a_budget_that_is_ignored_is_found() -> None:
    failed = [f.check for f in await findings(Spending(40)) if not f.passed]
    assert failed == ["budget 0", "budget 8", "at least 48"]
    assert not await canary.holds_budgets(Spending(40))


async def test_a_floor_that_is_ignored_is_found() -> None:
    failed = [f.check for f in await findings(Spending(0)) if not f.passed]
    assert failed == ["budget 8", "at least 8", "speed"]


async def test_a_model_that_hardly_thinks_proves_nothing() -> None:
    found = {f.check: f for f in await findings(Spending(5))}
    assert not found["budget 8"].passed and "not proved" in found["budget 8"].seen


async def test_a_backend_without_floors_is_good_enough(pocket_model: PocketModel) -> None:
    backend = PocketBackend(pocket_model)
    floorless = Floorless(backend)
    assert [f.check for f in await findings(floorless) if not f.passed] == ["at least 47"]
    assert await canary.holds_budgets(floorless)
    backend.close()


async def test_thinking_that_nobody_counts_is_found() -> None:
    found = await findings(Spending(None))
    assert [f.passed for f in found] == [True, True, False, False, False, False]
    assert "not reported" in found[2].seen


async def test_a_backend_that_is_not_ready_is_asked_nothing() -> None:
    backend = FakeBackend(is_ready=False)
    [finding] = await findings(backend)
    assert not finding.passed
    assert not backend.asked


async def test_a_backend_that_fails_is_a_finding_not_a_crash() -> None:
    found = await findings(FakeBackend([BackendUnavailable("gone")], [BackendError("nonsense")]))
    assert [f.seen for f in found[1:-1]] == ["gone", "nonsense", "nonsense", "nonsense"]
    assert not any(f.passed for f in found[1:])


class Full:
    """A backend that has no room for its first few streams."""

    def __init__(self, backend: Examined, times: int) -> None:
        self._backend = backend
        self._left = times
        self.ready, self.check_ready = backend.ready, backend.check_ready

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        self._left -= 1
        if self._left >= 0:
            raise BackendBusy("no room", 0.01)
        async for event in self._backend.stream(request):
            yield event


async def test_an_engine_that_is_full_for_a_moment_is_asked_again(pocket_model: PocketModel) -> None:
    backend = PocketBackend(pocket_model)
    assert await canary.holds_budgets(Full(backend, BUSY_TRIES))
    assert not await canary.holds_budgets(Full(backend, 1_000))
    backend.close()


async def test_a_stream_without_an_end_is_a_finding() -> None:
    found = await findings(FakeBackend([]))
    assert not any(f.passed for f in found[1:])


class Slow(FakeBackend):
    """Takes its time before the first token, and between tokens."""

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        await asyncio.sleep(0.02)
        yield ReasoningDelta("so")
        await asyncio.sleep(0.06)
        used = min(request.budget.tokens or 0, 21)
        yield replace(completion_of(request.budget, thinking_tokens=used), answer_tokens=10)


async def test_the_speed_is_measured_by_the_same_generations() -> None:
    found = [finding for finding in await findings(Slow()) if finding.speed is not None]
    (speed,) = [finding.speed for finding in found]
    assert speed is not None and found[0].check == "speed" and not found[0].needed
    # 30 tokens follow the first: a machine may be slower than that, and never faster.
    assert 0.01 < speed.first_token < 1 and 0.001 < speed.per_token < 1
