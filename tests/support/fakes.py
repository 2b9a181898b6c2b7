"""Fakes that implement the ports, and short ways to build what tests ask for. No mocks."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import structlog

import router
from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenant, Tenants
from router.backends.canary import Examined
from router.backends.verified import EnforcementStrategy, VerifiedBackend
from router.bundle import manifest
from router.bundle.manifest import Bundle
from router.domain import (
    BudgetLadder,
    Certificate,
    Choice,
    Completion,
    ContentDelta,
    CountSource,
    Decision,
    DecisionSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    LoggedDecision,
    MaxLoss,
    Message,
    Outcome,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    Role,
    RouteRequest,
    RoutingOptions,
    Score,
    ToolCall,
)
from router.errors import BackendUnavailable, CacheError, ClassifierError, OutcomeLogError
from router.events import Record
from router.ports import Backend, Classifier, Lessons, Observer, OutcomeLog, Pins, ScoreCache
from router.requests.limits import Limits
from router.routing.chooser import Chooser
from router.routing.exploration import certain
from router.routing.pins import MemoryPins
from router.routing.policy import LatencyProfile, Policy
from router.routing.router import Audit, BudgetRouter
from router.routing.served_model import ServedModel
from router.scoring.cache_key import ScoreKeys
from router.scoring.scorer import Scorer
from router.telemetry.log_writer import DeferredLog

R = TypeVar("R")

TENANT, MODEL = "default", "fake"
FINGERPRINT = "fake/1/native"
FOREIGN_BUNDLE = manifest.load(Path(router.__file__).parent / "models" / "pocket-router")
"""About the pocket reasoner, and so about another engine than FINGERPRINT names."""

BUNDLE = replace(FOREIGN_BUNDLE, manifest=replace(FOREIGN_BUNDLE.manifest, backend_fingerprint=FINGERPRINT))
VERSION = BUNDLE.version
THINKING, ANSWER = ("first ", "then "), ("the ", "answer")


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for something that happens soon, also on busy cores."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is awaited lies anywhere, without an event of its own
            await asyncio.sleep(0.001)


def ladder_of(*tokens: int) -> BudgetLadder:
    """Rungs named after their caps."""
    return BudgetLadder(tuple(ReasoningBudget(str(n), n) for n in tokens))


LADDER = ladder_of(0, 16, 32, 64, 128, 256)
CERTIFICATE = Certificate(alpha=0.05, delta=0.1, threshold=0.01, prompts=1_000)
LIMITS = Limits(max_messages=1_000, max_prompt_bytes=1 << 20, default_target=MaxLoss(0.05))
LATENCY = LatencyProfile(first_token=0.1, per_token=0.01, answer_tokens=10)


def score_with(quality: Sequence[float], means: Sequence[float]) -> Score:
    """A score with these P(correct) and mean tokens; their p99 is twice as much."""
    quantiles = (tuple(mean * times for mean in means) for times in (0.9, 1.5, 2))
    return Score(tuple(quality), tuple(means), *quantiles)


def score_of(*quality: float) -> Score:
    """A score with these P(correct), and tokens that grow from rung to rung."""
    return score_with(quality, [10.0 * i for i in range(len(quality))])


def unforeseen(*quality: float) -> Score:
    """A score with these P(correct), and no forecasts of tokens."""
    return Score(quality, *[(None,) * len(quality)] * 4)


RISING = score_of(0.1, 0.3, 0.5, 0.7, 0.85, 0.9)
"""On LADDER at CERTIFICATE's price the rung "128" is worth most."""


def request_of(
    text: str = "2 + 2 =", *, options: RoutingOptions | None = None, tenant: str = TENANT, model: str = ""
) -> RouteRequest:
    """A single user message; by default at most 5 % loss is wanted."""
    return RouteRequest(Prompt.of(text), options or RoutingOptions(MaxLoss(0.05)), tenant, model)


def called(*ids: str, name: str = "look", arguments: str = "{}") -> Message:
    """An assistant's turn that calls a tool once for each id."""
    return Message(Role.ASSISTANT, "", tuple(ToolCall(id_, name, arguments) for id_ in ids))


def result(id_: str, *, failed: bool = False) -> Message:
    """A tool's turn that answers a call."""
    return Message(Role.TOOL, "something", tool_call_id=id_, tool_failed=failed)


TOOL_LOOP = tuple(turn for i in range(6) for turn in (called("same", arguments=f"[{i}]"), result("same")))
"""Six steps of one call each, whose ids an engine made equal."""


def decision_of(
    id_: str = "a-decision",
    *,
    index: int = 4,
    score: Score | None = RISING,
    certificate: Certificate | None = CERTIFICATE,
    meets_target: bool = True,
    source: DecisionSource = DecisionSource.CLASSIFIER,
) -> Decision:
    """A decision on LADDER."""
    choice = Choice(index, meets_target, certificate, "because")
    chances = certain(len(LADDER), index)
    return Decision(id_, MODEL, FINGERPRINT, LADDER, choice, MaxLoss(0.05), source, VERSION, score, chances)


def completion_of(
    budget: ReasoningBudget = LADDER.rungs[4],
    *,
    thinking_tokens: int | None = 2,
    finish: FinishReason = FinishReason.NATURAL,
) -> Completion:
    """The end of a generation that thought for `thinking_tokens` and answered with two."""
    counted = CountSource.NONE if thinking_tokens is None else CountSource.ENGINE
    return Completion(finish, budget, Enforcement.NATIVE, counted, 7, thinking_tokens, 2)


def at_once(log: DeferredLog) -> None:
    """Log lines at once, by structlog, so that tests see them among all others and wait for none."""
    if (line := log()) is not None:
        fields = dict(line)
        level, event, at = (fields.pop(name) for name in ("level", "event", "timestamp"))
        getattr(structlog.get_logger(), level)(event, at=at, **fields)


class FakeClassifier:
    """Gives every prompt the same score, or what a function says; fails while `failing`."""

    def __init__(self, score: Score | Callable[[Prompt], Score] = RISING, *, failing: bool = False) -> None:
        self._score = score
        self.failing = failing
        self.asked: list[list[Prompt]] = []

    async def score(self, prompts: Sequence[Prompt], owner: bytes = b"") -> list[Score]:
        self.asked.append(list(prompts))
        if self.failing:
            raise ClassifierError("the classifier was told to fail")
        return [self._score if isinstance(self._score, Score) else self._score(prompt) for prompt in prompts]


class Hang:
    """In a script: nothing comes any more."""


Script = Sequence[GenerationEvent | Exception | Hang]
UNAVAILABLE = BackendUnavailable("the backend was told to fail")


class FakeBackend:
    """Plays one script a call, the last one again and again; without scripts it thinks and answers properly.

    Attributes:
        asked: every request, in order.
        open: streams under way.
        ended: streams played to their end.
        cancelled: streams closed before their end.
    """

    def __init__(self, *scripts: Script, delay: float = 0.0, is_ready: bool = True) -> None:
        self._scripts = list(scripts)
        self._delay = delay
        self.is_ready = is_ready
        self.asked: list[GenerationRequest] = []
        self.open = self.ended = self.cancelled = 0

    async def check_ready(self) -> None:
        if not self.is_ready:
            raise BackendUnavailable("the backend was told not to be ready")

    async def ready(self) -> bool:
        return self.is_ready

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        script = self._script(request)
        self.asked.append(request)
        self.open += 1
        try:
            for step in script:
                await asyncio.sleep(self._delay)
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Hang):
                    await asyncio.Event().wait()
                else:
                    yield step
            self.ended += 1
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled += 1
            raise
        finally:
            self.open -= 1

    def _script(self, request: GenerationRequest) -> Script:
        if self._scripts:
            return self._scripts[min(len(self.asked), len(self._scripts) - 1)]
        tokens = len(THINKING) if request.budget.tokens is None else request.budget.tokens
        thinking = THINKING[:tokens]
        forced = FinishReason.FORCED if len(thinking) < len(THINKING) else FinishReason.NATURAL
        completion = completion_of(request.budget, thinking_tokens=len(thinking), finish=forced)
        return [*map(ReasoningDelta, thinking), *map(ContentDelta, ANSWER), completion]


async def verified(backend: Examined, identity: str = "same") -> VerifiedBackend:
    """The backend behind a canary that always passes."""

    async def name(_: Enforcement) -> str:
        return identity

    async def passes(_: Examined) -> bool:
        return True

    strategy = EnforcementStrategy(Enforcement.NATIVE, backend, backend)
    made = VerifiedBackend([strategy], None, backend.check_ready, name, passes)
    await made.prove()
    return made


class DictCache:
    """Remembers for ever; fails while `failing`."""

    def __init__(self, *, failing: bool = False) -> None:
        self.failing = failing
        self.scores: dict[bytes, Score] = {}
        self.flushes = 0

    async def get_many(self, keys: Sequence[bytes]) -> list[Score | None]:
        self._check()
        return [self.scores.get(key) for key in keys]

    async def put_many(self, scores: Mapping[bytes, Score]) -> None:
        self._check()
        self.scores.update(scores)

    async def flush(self) -> None:
        self._check()
        self.scores.clear()
        self.flushes += 1

    def _check(self) -> None:
        if self.failing:
            raise CacheError("the cache was told to fail")


class ListLog:
    """Keeps everything in lists; reports fail while `failing`."""

    def __init__(self, *, failing: bool = False) -> None:
        self.failing = failing
        self.decided: list[tuple[str, Decision]] = []
        self.completed: list[tuple[str, Decision, Completion]] = []
        self.outcomes: list[Outcome] = []

    def record(self, request: RouteRequest, decision: Decision, completion: Completion | None) -> None:
        if completion is None:
            self.decided.append((request.tenant, decision))
        else:
            self.completed.append((request.tenant, decision, completion))

    async def find(self, decision_id: str) -> LoggedDecision | None:
        seen = {decision.id: end.checkpoints for _, decision, end in self.completed}.get(decision_id, ())
        found = (one for one in self.decided if one[1].id == decision_id)
        return next((LoggedDecision(tenant, decision, None, seen) for tenant, decision in found), None)

    async def report(self, outcome: Outcome) -> bool:
        if self.failing:
            raise OutcomeLogError("the outcome log was told to fail")
        whose = {decision.id: tenant for tenant, decision in self.decided}.get(outcome.decision_id)
        known = whose is not None and outcome.tenant in (None, whose)
        if known:
            self.outcomes.append(outcome)
        return known


class RecordingObserver:
    """Keeps every record."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def __call__(self, record: Record) -> None:
        self.records.append(record)

    def of(self, kind: type[R]) -> list[R]:
        """The records of one kind."""
        return [record for record in self.records if isinstance(record, kind)]


def policy_of(ladder: BudgetLadder = LADDER, certificates: Sequence[Certificate] = (CERTIFICATE,)) -> Policy:
    """The decision rule with this file's latency."""
    return Policy(ladder, certificates, LATENCY)


PROMISES = tuple(Certificate(round(1 - quality, 6), 0.1, quality, 500) for quality in (0.3, 0.5, 0.65, 0.99))
"""Certificates for absolute targets, each at the target itself."""

PER_PROMPT = (Certificate(0.05, 0.1, 0.02, 500), Certificate(0.2, 0.1, 0.2, 500))
"""Certificates for relative targets by each prompt's own forecast, one of them with a margin."""

PROMISING = replace(policy_of(), absolute=PROMISES, per_prompt=PER_PROMPT)


def router_of(
    *,
    classifier: Classifier | None = None,
    backend: Backend | None = None,
    cache: ScoreCache | None = None,
    log: OutcomeLog | None = None,
    observer: Observer | None = None,
    policy: Policy | None = None,
    tenants: Iterable[str] = (TENANT,),
    model: str = MODEL,
    failover: Sequence[ServedModel] = (),
    explored: float = 0.0,
    audit: Audit | None = None,
    lessons: Lessons | None = None,
    admission: Admission | None = None,
    bundle: Bundle = BUNDLE,
    pins: Pins | None = None,
) -> BudgetRouter:
    """A router of fakes, but for what is given. Its policy has certificates for absolute targets, too."""
    policy = policy or PROMISING
    observer, cache = observer or RecordingObserver(), cache or DictCache()
    scorer = Scorer(classifier or FakeClassifier(), ScoreKeys(b"secret", VERSION, policy.ladder), cache, observer)
    first = ServedModel(model, bundle, policy, scorer, backend or FakeBackend(), Enforcement.NATIVE, FINGERPRINT)
    known = Tenants({name: Tenant() for name in tenants})
    admission = admission or Admission(known, FairQueue(1e9, 1.0), MemoryQuotas(), observer)
    pins, log = MemoryPins() if pins is None else pins, log or ListLog()
    return BudgetRouter([first, *failover], known, log, observer, Chooser(explored), pins, admission, audit, lessons)
