"""A backend whose thoughts can be had step by step, as a script says."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningBudget,
    ReasoningDelta,
)
from router.errors import BackendError
from router.stopping.evidence import Probe
from tests.support.fakes import UNAVAILABLE, FakeBackend


def probe_of(text: str, logprob: float = -0.5, *, whole: bool = True) -> Probe:
    """A probe of four tokens."""
    return Probe(text, 4, whole, logprob, 2 * logprob)


SURE = probe_of("the answer is 4")


class ClimbingBackend(FakeBackend):
    """Thinks `length` tokens, then ends by itself; the probes are those of the cuts, by thinking tokens.

    Attributes:
        fails: what a probe at so many tokens raises.
        begun: the thoughts that were begun, in order.
        hangs: a step by name that never ends.
        answers_fail: what every answer behind a cut raises.
        finish: how every answer behind a cut ends.
        breaks: a thought fails when it would be longer than this.
    """

    def __init__(
        self, probes: Mapping[int, Probe] | None = None, *, length: int = 1_000, climbs: bool = True, hangs: str = ""
    ) -> None:
        super().__init__()
        self.probes = dict(probes or {})
        self.length = length
        self.climbs = climbs
        self.hangs = hangs
        self.fails: dict[int, BackendError] = {}
        self.begun: list[ScriptedClimb] = []
        self.breaks: int | None = None
        self.answers_fail: BackendError | None = None
        self.finish = FinishReason.FORCED

    def climb(self, request: GenerationRequest) -> "ScriptedClimb":
        """A thought that has not begun."""
        climb = ScriptedClimb(self, request)
        self.begun.append(climb)
        return climb


@dataclass
class ScriptedClimb:
    """A thought of a ClimbingBackend.

    Attributes:
        steps: what was asked for, in order.
    """

    backend: ClimbingBackend
    request: GenerationRequest
    tokens: int = 0
    ended: bool = False
    steps: list[tuple[str, int | None]] = field(default_factory=list)

    @property
    def greedy(self) -> bool:
        return self.request.sampling.temperature == 0

    async def think(self, upto: int | None) -> AsyncGenerator[ReasoningDelta]:
        self.steps.append(("think", upto))
        await self._running("think")
        caps = [cap for cap in (upto, self.request.budget.tokens) if cap is not None]
        while self.tokens < min(caps) and not self.ended:
            if self.tokens == self.backend.breaks:
                raise UNAVAILABLE
            self.ended = self.tokens == self.backend.length
            if not self.ended:
                self.tokens += 1
                yield ReasoningDelta("t")

    async def probe(self, tokens: int, *, end: bool = True) -> Probe:
        self.steps.append(("probe", tokens))
        await self._running("probe")
        if self.tokens in self.backend.fails:
            raise self.backend.fails[self.tokens]
        return self.backend.probes.get(self.tokens, probe_of(f"perhaps {self.tokens}"))

    def fork(self) -> "ScriptedClimb":
        fork = replace(self, steps=[])
        self.backend.begun.append(fork)
        return fork

    async def recall(self, reasoning: str) -> None:
        self.steps.append(("recall", len(reasoning)))
        await self._running("recall")
        self.tokens, self.ended = len(reasoning), True

    def upto(self, budget: ReasoningBudget) -> "ScriptedClimb":
        cut = self.fork()
        if budget.tokens is not None and budget.tokens <= self.tokens:
            cut.tokens, cut.ended, cut.request = budget.tokens, False, replace(self.request, budget=budget)
        return cut

    def taken(self, probe: Probe) -> Completion:
        return self._completion(probe.tokens)

    async def answer(self) -> AsyncGenerator[GenerationEvent]:
        self.steps.append(("answer", None))
        await self._running("answer")
        if self.backend.answers_fail is not None:
            raise self.backend.answers_fail
        yield ContentDelta("answered ")
        yield ContentDelta(f"at {self.tokens}")
        end = self._completion(2)
        yield replace(end, finish=FinishReason.NATURAL) if self.ended else end

    async def _running(self, step: str) -> None:
        self.backend.open += 1
        try:
            await asyncio.sleep(0)
            if self.backend.hangs == step:
                await asyncio.Event().wait()
        finally:
            self.backend.open -= 1

    def _completion(self, answered: int) -> Completion:
        budget, source = self.request.budget, CountSource.ENGINE
        return Completion(self.backend.finish, budget, Enforcement.NATIVE, source, 7, self.tokens, answered)


def asked(climb: ScriptedClimb) -> Sequence[str]:
    """The steps by name."""
    return [step for step, _ in climb.steps]
