"""Ports of the request path to the outside world, of one or two methods each."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from router.domain import (
    Completion,
    Conversation,
    Decision,
    GenerationEvent,
    GenerationRequest,
    LoggedDecision,
    Outcome,
    Pinned,
    PinnedTurn,
    Prompt,
    Quota,
    ReasoningBudget,
    ReasoningDelta,
    RouteRequest,
    Sampling,
    Score,
    ServedEvent,
)
from router.events import Record
from router.stopping.evidence import Probe


class Classifier(Protocol):
    """Predicts quality and tokens for prompts."""

    async def score(self, prompts: Sequence[Prompt], owner: bytes = b"") -> list[Score]:
        """One score per prompt, in order; owners that wait take turns. Raises ClassifierError."""
        ...


@runtime_checkable
class Immediate(Protocol):
    """A classifier that can score a short prompt within a turn of the event loop."""

    def at_once(self, prompt: Prompt) -> Score | None:
        """The score of a prompt; None where it takes too long for one turn. Raises ClassifierError."""
        ...


class ScoreCache(Protocol):
    """Remembers scores by key. A cache never fails a request: an error counts as a miss."""

    @property
    def flushes(self) -> int:
        """How often all scores were dropped."""
        ...

    async def get_many(self, keys: Sequence[bytes]) -> list[Score | None]:
        """One entry per key, in order; None = miss. Raises CacheError."""
        ...

    async def put_many(self, scores: Mapping[bytes, Score]) -> None:
        """Remember scores. Raises CacheError."""
        ...


class Backend(Protocol):
    """Runs a reasoning model within a budget."""

    def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Deltas, then exactly one Completion. Closing the generator stops the engine. Raises BackendError."""
        ...

    async def ready(self) -> bool:
        """True when the backend can serve requests."""
        ...


@runtime_checkable
class Placing(Protocol):
    """A backend that can say which engine would answer, for a gateway that carries the request there by itself."""

    def place(self, session: str | None) -> str | None:
        """The address of an engine that may be asked; None where there is none.

        Args:
            session: equal for requests that share a prefix, which the same engine should answer.
        """
        ...


class Climb(Protocol):
    """One thought that is had step by step. All of its steps run at the same engine, whose prefix cache holds it."""

    @property
    def tokens(self) -> int:
        """Thinking tokens so far."""
        ...

    @property
    def ended(self) -> bool:
        """The thought has ended by itself."""
        ...

    @property
    def greedy(self) -> bool:
        """Answers are drawn greedily, as probes are, so that a whole probe is the answer."""
        ...

    def think(self, upto: int | None) -> AsyncGenerator[ReasoningDelta]:
        """Think on, to `upto` tokens in all and no further than the request's budget. Raises BackendError."""
        ...

    def fork(self) -> "Climb":
        """The same thought as it is now, whose steps leave this one as it is, and the other way round."""
        ...

    async def recall(self, reasoning: str) -> None:
        """Take up a thought that was had before and is over, by its text, in place of thinking. Raises BackendError.

        `tokens` then says as how many the engine reads the text: where it drew others, that may differ.
        """
        ...

    def upto(self, budget: ReasoningBudget) -> "Climb":
        """A recalled thought as a smaller budget would have had it; it has `ended` where the budget cuts nothing."""
        ...

    def taken(self, probe: Probe) -> Completion:
        """The completion, where the probe just had is the answer."""
        ...

    async def probe(self, tokens: int, *, end: bool = True) -> Probe:
        """The greedy answer behind the thought as it is, of at most `tokens`; the thought stays as it is.

        With `end` also the log-probability of the end marker. Raises BackendError.
        """
        ...

    def answer(self) -> AsyncGenerator[GenerationEvent]:
        """The answer behind the thought as it is, and the completion. Raises BackendError."""
        ...


@runtime_checkable
class Climber(Protocol):
    """A backend that can stop between the tokens of a thought and go on."""

    @property
    def climbs(self) -> bool:
        """The engine can do it."""
        ...

    def climb(self, request: GenerationRequest) -> Climb | None:
        """A thought within the request's budget, of which nothing runs yet; None where the engine cannot do it.

        Each step stops the engine when its generator is closed or its task cancelled; nothing runs between two steps.
        Raises InvalidRequest where the request cannot be had in steps.
        """
        ...


class Verifier(Protocol):
    """Judges answers."""

    async def correct(self, prompt: Prompt, answers: list[str]) -> list[float]:
        """Correctness 0..1 of each answer to a prompt, in order. Raises VerifierError."""
        ...


class Quotas(Protocol):
    """Holds tenants within their quotas."""

    async def take(self, tenant: str, quota: Quota, lease: str, tokens: float) -> float:
        """Take tokens and a stream under the name of a lease; returns 0, or the seconds to wait if there are none."""
        ...

    async def give_back(self, tenant: str, quota: Quota, lease: str, unused: float) -> None:
        """End a lease and return its `unused` tokens; a negative number takes what was used beyond the forecast."""
        ...


class Pins(Protocol):
    """Remembers what conversations keep. It never fails a request: each process knows its own conversations."""

    def known(self, conversation: Conversation) -> Pinned | None:
        """What this process has last seen a conversation keep; None = nothing. It waits for nobody."""
        ...

    async def settle(self, turns: Sequence[PinnedTurn]) -> list[Pinned | None]:
        """What each conversation keeps from its turn on, in order.

        It is what the turn wants where the conversation keeps nothing, or what the turn has seen; else what it keeps.
        """
        ...


class OutcomeLog(Protocol):
    """Keeps decisions, completions and outcomes."""

    def record(self, request: RouteRequest, decision: Decision, completion: Completion | None) -> None:
        """Record a decision, or how its generation ended; returns at once and writes later."""
        ...

    async def report(self, outcome: Outcome) -> bool:
        """Attach an outcome; it is durable on return. False if the decision is unknown. Raises OutcomeLogError."""
        ...


class Lesson(Protocol):
    """A request that was drawn to learn from, as it is served; nothing here waits."""

    def take(self, event: ServedEvent) -> None:
        """See an event that the caller gets."""
        ...

    def end(self, *, busy: bool) -> None:
        """The caller has the last event, or has left; `busy` where others wait for the engine."""
        ...


class Lessons(Protocol):
    """Learns from what is served; nothing here waits."""

    def has_room(self, model: str) -> bool:
        """Whether a request to a model could be learned from now."""
        ...

    def drawn(self, backend: Backend, request: RouteRequest, decision: Decision, sampling: Sampling) -> Lesson | None:
        """A lesson, where this request is one to learn from."""
        ...

    def report(self, outcome: Outcome) -> None:
        """Hear what a caller says of an answer."""
        ...


class DecisionArchive(Protocol):
    """Finds earlier decisions."""

    async def find(self, decision_id: str) -> LoggedDecision | None:
        """The decision as it was kept; None if the id is unknown. Raises OutcomeLogError."""
        ...


class Observer(Protocol):
    """Sees every event; must neither raise nor wait."""

    def __call__(self, record: Record) -> None: ...
