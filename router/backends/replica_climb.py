"""A thought that is had step by step at one of several engines."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol, TypeVar

from router.backends.replica import Failed, Replica
from router.domain import Completion, GenerationEvent, GenerationRequest, ReasoningBudget, ReasoningDelta
from router.errors import BackendUnavailable
from router.ports import Climb
from router.stopping.evidence import Probe

T = TypeVar("T")


class Tried(Protocol):
    """Runs an attempt, and further ones where it fails before its first event and `left` finds a replica."""

    def __call__(
        self, failed: Failed, left: Callable[[], Replica | None], attempt: Callable[[], AsyncGenerator[T]]
    ) -> AsyncGenerator[T]: ...


class ReplicaClimb:
    """Implements `Climb`. A step that fails before its first event is tried again.

    Until a token is thought, another replica may take over. From then on the thought stays where its prefix is cached.

    Args:
        choose: a replica that may answer a request; None where there is none.
        none_left: says so.
    """

    def __init__(
        self,
        request: GenerationRequest,
        choose: Callable[[GenerationRequest, Failed], Replica | None],
        tried: Tried,
        none_left: Callable[[], str],
    ) -> None:
        self._request = request
        self._choose = choose
        self._tried = tried
        self._none_left = none_left
        self._at: tuple[Replica, Climb] | None = None

    @property
    def tokens(self) -> int:
        """Thinking tokens so far."""
        return 0 if self._at is None else self._at[1].tokens

    @property
    def ended(self) -> bool:
        """The thought has ended by itself."""
        return self._at is not None and self._at[1].ended

    @property
    def greedy(self) -> bool:
        """Answers are drawn greedily; an engine's own default may be anything."""
        return self._request.sampling.temperature == 0

    def think(self, upto: int | None) -> AsyncGenerator[ReasoningDelta]:
        """Think on, to `upto` tokens in all. Raises InvalidRequest, BackendError."""
        return self._step(lambda climb: climb.think(upto), self._request.expected_tokens)

    async def probe(self, tokens: int, *, end: bool = True) -> Probe:
        """The greedy answer behind the thought as it is, of at most `tokens`. Raises InvalidRequest, BackendError."""

        async def once(climb: Climb) -> AsyncGenerator[Probe]:
            yield await climb.probe(tokens, end=end)

        async with aclosing(self._step(once, tokens)) as probes:
            return await anext(probes)

    def fork(self) -> "ReplicaClimb":
        """The same thought as it is now, at the same replica; neither changes the other."""
        fork = ReplicaClimb(self._request, self._choose, self._tried, self._none_left)
        fork._at = None if self._at is None else (self._at[0], self._at[1].fork())
        return fork

    async def recall(self, reasoning: str) -> None:
        """Take up a thought that was had before, by its text. Raises InvalidRequest, BackendError."""

        async def once(climb: Climb) -> AsyncGenerator[None]:
            await climb.recall(reasoning)
            yield None

        async with aclosing(self._step(once, 0.0)) as done:
            await anext(done)

    def upto(self, budget: ReasoningBudget) -> "ReplicaClimb":
        """A recalled thought as a smaller budget would have had it, at the same replica."""
        assert self._at is not None
        cut = ReplicaClimb(replace(self._request, budget=budget), self._choose, self._tried, self._none_left)
        cut._at = (self._at[0], self._at[1].upto(budget))
        return cut

    def taken(self, probe: Probe) -> Completion:
        """The completion, where the probe just had is the answer."""
        assert self._at is not None
        return self._at[1].taken(probe)

    def answer(self) -> AsyncGenerator[GenerationEvent]:
        """The answer behind the thought as it is, and the completion. Raises InvalidRequest, BackendError."""
        return self._step(lambda climb: climb.answer(), self._request.expected_tokens)

    def _step(self, step: Callable[[Climb], AsyncGenerator[T]], tokens: float) -> AsyncGenerator[T]:
        """A step that takes about so many tokens, which count as load of its replica."""
        failed: Failed = {}

        def attempt() -> AsyncGenerator[T]:
            replica, climb = self._placed(failed)
            return replica.counted(tokens, failed, step(climb))

        return self._tried(failed, lambda: self._next(failed), attempt)

    def _next(self, failed: Failed) -> Replica | None:
        if self._at is not None and (self.tokens or self.ended or self._at[0] not in failed):
            return self._at[0]
        return self._choose(self._request, failed)

    def _placed(self, failed: Failed) -> tuple[Replica, Climb]:
        """The replica and its climb, which begins anew at another replica. Raises BackendUnavailable."""
        chosen = self._next(failed)
        if chosen is not None and (self._at is None or self._at[0] is not chosen):
            climb = chosen.backend.climb(self._request)
            self._at = None if climb is None else (chosen, climb)
        if chosen is None or self._at is None:
            raise BackendUnavailable(f"backend: {self._none_left()}")
        return self._at
