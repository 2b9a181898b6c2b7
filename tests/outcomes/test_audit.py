"""The audit alarms where the certificate does not hold, seldom where it does, and its alarm has effect."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from router.domain import (
    ContentDelta,
    DecisionSource,
    MaxLoss,
    Message,
    MinQuality,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    Role,
    RoutingOptions,
    Sampling,
    Score,
)
from router.errors import SettingsError, VerifierError
from router.events import Audited, Degraded
from router.outcomes.agreement import Agreement
from router.outcomes.audit import Auditor, TokenBucket
from router.outcomes.e_process import DELTA, EProcess, Ledger
from router.routing.router import BudgetRouter
from router.routing.served_models import SUSPENDED
from tests.support.fakes import (
    BUNDLE,
    LADDER,
    MODEL,
    RISING,
    UNAVAILABLE,
    VERSION,
    FakeBackend,
    Hang,
    RecordingObserver,
    Script,
    completion_of,
    decision_of,
    request_of,
    router_of,
    until,
)

ALPHA = 0.02


def first_alarm(losses: NDArray[np.float64], alpha: float = ALPHA) -> int | None:
    process = EProcess(alpha)
    for number, loss in enumerate(losses.tolist(), 1):
        process.bet(loss)
        if process.alarmed:
            return number
    return None


def losses(random: np.random.Generator, worse: float, better: float, n: int) -> NDArray[np.float64]:
    return random.choice([1.0, -1.0, 0.0], n, p=[worse, better, 1 - worse - better])


@pytest.mark.parametrize(("worse", "better"), [(0.02, 0.0), (0.03, 0.01), (0.05, 0.03)])
def test_at_the_certified_loss_alarms_are_as_rare_as_promised(worse: float, better: float) -> None:
    random = np.random.default_rng(1)
    alarms = sum(first_alarm(losses(random, worse, better, 1_000)) is not None for _ in range(300))
    assert alarms <= 300 * DELTA


def test_twenty_runs_without_drift_are_quiet() -> None:
    random = np.random.default_rng(2)
    assert not any(first_alarm(losses(random, 0.012, 0.006, 1_000)) for _ in range(20))


def test_twice_the_certified_loss_is_found() -> None:
    random = np.random.default_rng(3)
    found = [first_alarm(losses(random, 0.04, 0.0, 3_000)) for _ in range(600)]
    assert all(found)
    assert np.median([number for number in found if number]) <= 300


def test_an_audit_counts_from_one_and_never_goes_below_nothing() -> None:
    process = EProcess(ALPHA)
    assert (process.wealth, process.alarmed) == (1.0, False)
    for _ in range(500):
        process.bet(-1.0)
    assert process.wealth >= 0
    assert process.labels == 500


async def test_the_ledger_outlives_a_restart_and_an_alarm_stays(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    ledger = Ledger(path)
    ledger.bet("v1", ALPHA, 0.0)
    while not ledger.bet("v1", 0.05, 1.0).alarmed:
        pass
    await ledger.save()
    again = Ledger(path)
    assert again.alarmed("v1") and not again.alarmed("v2")
    assert next((p.alpha, p.labels) for p in again.processes("v1")) == (ALPHA, 1)
    for _ in range(100):
        again.bet("v1", 0.05, -1.0)
    assert again.alarmed("v1")


def test_an_allowance_is_used_up_and_refilled() -> None:
    now = [0.0]
    bucket = TokenBucket(3600, lambda: now[0])
    assert bucket.take(3600) and not bucket.take(1)
    now[0] += 10
    assert not bucket.take(11) and bucket.take(10)
    now[0] += 1e6
    assert not bucket.take(3601) and bucket.take(3600)


async def test_agreement_overlooks_case_and_spaces() -> None:
    assert await Agreement().correct(None, ["The answer", "the  ANSWER ", "another"]) == [1.0, 1.0, 0.0]


async def test_agreement_is_that_of_what_was_learned() -> None:
    answers = ["It is 4.", "4", "IT is 4.", "5", "four", ""]
    assert await Agreement("numeric").correct(None, answers) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert await Agreement("numeric").correct(None, ["", " "]) == [1.0, 1.0]


class Fixed:
    """A verifier that gives every pair the same verdict."""

    def __init__(self, *correct: float) -> None:
        self._correct = list(correct)
        self.asked: list[tuple[Prompt, list[str]]] = []

    async def correct(self, prompt: Prompt, answers: list[str]) -> list[float]:
        self.asked.append((prompt, answers))
        if not self._correct:
            raise VerifierError("the verifier was told to fail")
        return self._correct


class Audit:
    """A router of fakes, audited."""

    def __init__(self, home: Path, verifier: Fixed, backend: FakeBackend | None = None, share: float = 1.0) -> None:
        self.observer, self.verifier, self.backend = RecordingObserver(), verifier, backend or FakeBackend()
        self.ledger = Ledger(home / "audit.json")
        bucket = TokenBucket(1e9)
        self.auditor = Auditor(share, bucket, verifier, self.ledger, self.observer)
        self.router: BudgetRouter = router_of(backend=self.backend, observer=self.observer, audit=self.auditor)
        self.auditor.on_alarm(self.router.suspend)

    async def ask(self, options: RoutingOptions | None = None) -> None:
        async for _ in self.router.generate(request_of(options=options), Sampling()):
            pass

    @property
    def audited(self) -> list[Audited]:
        return self.observer.of(Audited)


async def test_a_cheaper_answer_is_compared_with_the_top_rungs(tmp_path: Path) -> None:
    audit = Audit(tmp_path, Fixed(1.0, 0.0))
    await audit.ask()
    await until(lambda: audit.audited)
    assert [request.budget.name for request in audit.backend.asked] == ["128", "256"]
    assert audit.verifier.asked == [(Prompt.of("2 + 2 ="), ["the answer", "the answer"])]
    [record] = audit.audited
    assert (record.model, record.alpha, record.loss, record.alarmed) == (MODEL, 0.05, 1.0, False)
    assert record.thinking_tokens == (2, 2), "of the answer, and at the top rung"


async def test_a_certificate_that_does_not_hold_is_given_up_for_everyone(tmp_path: Path) -> None:
    audit = Audit(tmp_path, Fixed(1.0, 0.0))
    while not audit.ledger.alarmed(VERSION):
        await audit.ask()
        await until(lambda: not audit.auditor._tasks)
    decision = await audit.router.decide(request_of())
    assert (decision.rung, decision.choice.certificate) == (LADDER.rungs[-1], None)
    assert SUSPENDED in decision.choice.reason
    absolute = await audit.router.decide(request_of(options=RoutingOptions(MinQuality(0.3))))
    assert absolute.rung == LADDER.rungs[-1]
    before = len(audit.audited)
    await audit.ask()
    assert len(audit.audited) == before, "without a certificate there is nothing to audit"


async def test_the_top_rungs_own_answers_lose_nothing_and_cost_nothing(tmp_path: Path) -> None:
    audit = Audit(tmp_path, Fixed(1.0, 0.0))
    audit.router = router_of(audit=audit.auditor, backend=audit.backend)
    decision = await audit.router.decide(request_of())
    top = len(LADDER) - 1
    choice = decision.choice.__class__(top, True, decision.choice.certificate, "top")
    at_top = decision.__class__(
        "id", MODEL, "f", LADDER, choice, MaxLoss(0.05), DecisionSource.CLASSIFIER, VERSION, decision.score, (0,) * top
    )
    audit.auditor(audit.backend, request_of(), at_top, Sampling(), "x", 7)
    assert [(record.loss, record.thinking_tokens) for record in audit.audited] == [(0.0, (7, 7))]
    assert not audit.backend.asked


@pytest.mark.parametrize(
    "options", [RoutingOptions(MaxLoss(0.05), rung="64"), RoutingOptions(MinQuality(0.3)), RoutingOptions(MaxLoss(0.0))]
)
async def test_only_what_a_relative_certificate_vouches_for_is_audited(tmp_path: Path, options: RoutingOptions) -> None:
    audit = Audit(tmp_path, Fixed(1.0, 0.0))
    await audit.ask(options)
    assert (len(audit.backend.asked), audit.audited) == (1, [])


async def test_the_rest_of_an_answer_that_the_caller_has_begun_is_not_judged(tmp_path: Path) -> None:
    audit = Audit(tmp_path, Fixed(1.0, 0.0))
    begun = Prompt((*request_of().prompt.messages, Message(Role.ASSISTANT, "4")))
    async for _ in audit.router.generate(replace(request_of(), prompt=begun), Sampling()):
        pass
    assert (len(audit.backend.asked), audit.audited) == (1, [])


async def test_a_share_of_the_requests_is_audited(tmp_path: Path) -> None:
    audit = Audit(tmp_path, Fixed(1.0, 1.0), share=0.2)
    for _ in range(300):
        await audit.ask()
        await until(lambda: not audit.auditor._tasks)
    assert 30 <= len(audit.audited) <= 90


async def test_an_audit_that_fails_is_reported_and_counts_for_nothing(tmp_path: Path) -> None:
    answered: Script = [ReasoningDelta("hm"), ContentDelta("4"), completion_of(ReasoningBudget("128", 128))]
    for verifier, backend in ((Fixed(), FakeBackend()), (Fixed(1.0, 0.0), FakeBackend(answered, [UNAVAILABLE]))):
        audit = Audit(tmp_path, verifier, backend)
        await audit.ask()
        await until(lambda: audit.observer.of(Degraded))  # noqa: B023 - awaited within the turn
        assert audit.observer.of(Degraded)[0].dependency == "audit"
        assert not audit.audited


async def test_audits_under_way_are_stopped_at_the_end(tmp_path: Path) -> None:
    audit = Audit(tmp_path, Fixed(1.0, 0.0), FakeBackend(delay=0.05))
    await audit.ask()
    await asyncio.sleep(0.06)
    await audit.auditor.close()
    assert audit.backend.open == 0 and not audit.audited
    assert BUNDLE.version == VERSION


@pytest.mark.parametrize("text", ["", "[]", "{", '{"v": {"0.02": {"beta": 1}}}', '{"v": 1}'])
def test_a_file_that_is_not_a_ledger_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(SettingsError, match=r"audit\.json"):
        Ledger(tmp_path / "audit.json")


async def test_a_ledger_that_cannot_be_written_is_reported_and_still_counts(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "gone", Fixed(1.0, 0.0))
    (tmp_path / "gone").rmdir()
    await audit.ask()
    await until(lambda: audit.observer.of(Degraded))
    assert "cannot be written" in audit.observer.of(Degraded)[0].error
    assert audit.ledger.processes(VERSION)[0].labels == 1


def test_one_label_moves_the_capital_by_its_stakes() -> None:
    """The largest bet is the one that the smallest loss, -1, would just use up."""
    process = EProcess(0.25)
    process.bet(-1.0)
    assert process.capital == pytest.approx([0.5, 0.1])
    process = EProcess(0.25)
    process.bet(0.25)
    assert process.capital == pytest.approx([1.0, 1.0]), "a loss of alpha is what the hypothesis expects"
    process.bet(1.0)
    assert process.capital == pytest.approx([1 + 0.5 * 0.6, 1 + 0.9 * 0.6])
    assert process.wealth == pytest.approx(1.42)
    assert process.labels == 2


def test_evidence_of_ten_to_one_alarms() -> None:
    assert EProcess(ALPHA, 1, [10.0, 10.0]).alarmed
    assert not EProcess(ALPHA, 1, [10.0, 9.9]).alarmed


async def test_a_ledger_keeps_a_process_for_every_bundle_and_alpha(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "down" / "audit.json")
    assert ledger.processes("v1") == [] and not ledger.alarmed("v1")
    ledger.bet("v1", 0.02, 1.0)
    ledger.bet("v1", 0.05, 0.0)
    ledger.bet("v2", 0.02, 0.0)
    await ledger.save()
    assert [process.alpha for process in ledger.processes("v1")] == [0.02, 0.05]
    assert ledger.process("v1", 0.02) is ledger.processes("v1")[0]
    another = Ledger(tmp_path / "deep" / "down" / "audit.json")
    assert another.processes("v1") == ledger.processes("v1")
    assert another.processes("v2") == ledger.processes("v2") != another.processes("v1")
    ledger.bet("v2", 0.02, 1.0)
    await ledger.save()
    another.read()
    assert another.processes("v2")[0].labels == 2


def test_an_allowance_is_full_at_first_and_refills_within_an_hour() -> None:
    now = [50.0]
    bucket = TokenBucket(7_200, lambda: now[0])
    assert not bucket.take(7_201) and bucket.take(7_200)
    now[0] += 1
    assert not bucket.take(2.1) and bucket.take(1) and bucket.take(1) and not bucket.take(0.1)
    now[0] += 1_800
    assert not bucket.take(3_601) and bucket.take(3_600)


async def test_no_more_than_eight_audits_run_at_a_time(tmp_path: Path) -> None:
    hanging = Audit(tmp_path, Fixed(1.0, 1.0), FakeBackend([Hang()]))
    for _ in range(10):
        hanging.auditor(hanging.backend, request_of(), decision_of(), Sampling(), "4", 3)
    await until(lambda: hanging.backend.open == 8)
    await asyncio.sleep(0.01)
    assert len(hanging.backend.asked) == 8
    await hanging.auditor.close()
    assert hanging.backend.open == 0


@pytest.mark.parametrize(("forecast", "allowed"), [(RISING, 50.0), (None, 256.0)])
async def test_an_audit_takes_what_the_top_rung_is_forecast_to_use(
    tmp_path: Path, forecast: Score | None, allowed: float
) -> None:
    backend, verifier = FakeBackend(), Fixed(1.0, 1.0)
    for tokens, runs in ((allowed, 1), (allowed - 1, 0)):
        observer, ledger = RecordingObserver(), Ledger(tmp_path / f"{runs}.json")
        auditor = Auditor(1.0, TokenBucket(tokens, lambda: 0.0), verifier, ledger, observer)
        backend.asked.clear()
        auditor(backend, request_of(), decision_of(score=forecast), Sampling(), "4", 3)
        auditor(backend, request_of(), decision_of(score=forecast), Sampling(), "4", 3)
        await until(lambda: not auditor._tasks)  # noqa: B023 - awaited within the turn
        assert [(asked.budget, asked.expected_tokens, asked.min_thinking_tokens) for asked in backend.asked] == [
            (LADDER.rungs[-1], allowed, 0)
        ] * runs


async def test_a_bundle_is_suspended_once_and_for_the_difference_alone(tmp_path: Path) -> None:
    suspended: list[tuple[str, str]] = []
    observer, ledger = RecordingObserver(), Ledger(tmp_path / "audit.json")
    auditor = Auditor(1.0, TokenBucket(1e9), Fixed(0.75, 0.25), ledger, observer)
    auditor.on_alarm(lambda *bundle: suspended.append(bundle))
    while len(observer.of(Audited)) < 200:
        seen = len(observer.of(Audited))
        auditor(FakeBackend(), request_of(), decision_of(), Sampling(), "4", 3)
        await until(lambda: len(observer.of(Audited)) > seen)  # noqa: B023 - awaited within the turn
    assert {record.loss for record in observer.of(Audited)} == {0.5}
    assert observer.of(Audited)[-1].alarmed and not observer.of(Audited)[0].alarmed
    assert suspended == [(MODEL, VERSION)]


async def test_nothing_is_audited_at_a_share_of_nothing(tmp_path: Path) -> None:
    audit = Audit(tmp_path, Fixed(1.0, 1.0), share=0.0)
    for _ in range(20):
        await audit.ask()
    assert len(audit.backend.asked) == 20


class HeldLedger(Ledger):
    """A ledger whose disk writes one text for each `release` of the semaphore."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.free = threading.Semaphore(0)
        self.writes = 0

    def _write(self, text: str) -> None:
        self.free.acquire()
        self.writes += 1
        super()._write(text)


async def test_a_slow_disk_holds_up_nothing_and_the_last_evidence_is_on_it_at_the_end(tmp_path: Path) -> None:
    observer, ledger = RecordingObserver(), HeldLedger(tmp_path / "audit.json")
    auditor = Auditor(1.0, TokenBucket(1e9), Fixed(0.5, 0.5), ledger, observer)
    for number in range(1, 6):
        auditor(FakeBackend(), request_of(), decision_of(), Sampling(), "4", 3)
        await until(lambda: len(observer.of(Audited)) == number)  # noqa: B023 - awaited within the turn
    assert ledger.writes == 0
    ledger.free.release(2)
    await auditor.close()
    assert ledger.writes == 2, "bets that arrive during a write share the next one"
    assert Ledger(tmp_path / "audit.json").processes(VERSION)[0].labels == 5
