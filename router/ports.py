"""What the request path needs from the outside world, one or two methods each."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from router.domain import (
    Completion,
    Decision,
    GenerationEvent,
    GenerationRequest,
    Outcome,
    Prompt,
    Quota,
    RouteRequest,
    Score,
)
from router.events import Record


class Classifier(Protocol):
    """Predicts quality and tokens for prompts."""

    async def score(self, prompts: Sequence[Prompt]) -> list[Score]:
        """One score per prompt, in order. Raises ClassifierError."""
        ...


class ScoreCache(Protocol):
    """Remembers scores by key. A cache never fails a request: what it can not do is a miss."""

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
        """True when requests can be served."""
        ...


class Verifier(Protocol):
    """Says how right answers are."""

    async def correct(self, prompt: Prompt, answers: list[str]) -> list[float]:
        """Correctness 0..1 of each answer to a prompt, in order. Raises VerifierError."""
        ...


class Quotas(Protocol):
    """Holds tenants within their quotas."""

    async def take(self, tenant: str, quota: Quota, lease: str, tokens: float) -> float:
        """Use up tokens and a stream, under the name of a lease; seconds to wait where there are none, else 0."""
        ...

    async def give_back(self, tenant: str, quota: Quota, lease: str, unused: float) -> None:
        """End a lease; `unused` tokens (below 0 = more were used) are put right."""
        ...


class OutcomeLog(Protocol):
    """Keeps what was decided and how it turned out."""

    def record(self, request: RouteRequest, decision: Decision, completion: Completion | None) -> None:
        """Remember a decision, and how its generation ended, soon; never waits."""
        ...

    async def report(self, outcome: Outcome) -> bool:
        """Attach an outcome; durable on return. False when the decision is unknown. Raises OutcomeLogError."""
        ...


class DecisionArchive(Protocol):
    """Finds earlier decisions."""

    async def find(self, decision_id: str) -> tuple[str, Decision, Prompt | None] | None:
        """Tenant, decision, and the prompt where it was kept; None where it is unknown. Raises OutcomeLogError."""
        ...


class Observer(Protocol):
    """Watches what happens; must not raise or wait."""

    def __call__(self, record: Record) -> None: ...
