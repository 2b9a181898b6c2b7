"""Thinks from rung to rung under a stopping rule, and answers where it says so."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from router.domain import (
    Checkpoint,
    Completion,
    ContentDelta,
    Decision,
    FinishReason,
    GenerationEvent,
    ReasoningBudget,
    ServedEvent,
)
from router.errors import BackendError, ClassifierError
from router.events import Degraded
from router.evidence import PROBE_TOKENS, Evidence, Probe, following
from router.ports import Climb, Observer
from router.stopping import Lookahead, StoppingRule, stops

Key = Callable[[str], str | None]
"""Makes the key of an answer; None where the text holds no answer."""

NO_PROBE = Probe("", 0, whole=False)
"""Stands for a probe that failed: nothing is known of this cut."""


class StoppingClimber:
    """One generation under a stopping rule.

    A thought that ends by itself is answered at once, and so is one at the top rung. A probe that fails is no evidence,
    so the thought goes on. So it does where a learned rule's graph fails.

    Args:
        climb: a thought that has not begun, bounded by the top rung.
        key: as the outcomes were compared that the rule is certified on.
    """

    def __init__(
        self,
        climb: Climb,
        decision: Decision,
        rule: StoppingRule,
        key: Key,
        observer: Observer,
        lookahead: Lookahead | None = None,
    ) -> None:
        self._climb = climb
        self._decision = decision
        self._rule = rule
        self._key = key
        self._observer = observer
        self._lookahead = lookahead
        self._evidence: Evidence | None = None
        self._passed: list[Checkpoint] = []

    async def stream(self) -> AsyncGenerator[ServedEvent]:
        """Deltas and checkpoints, then the completion. Raises InvalidRequest, BackendError."""
        rungs = self._decision.ladder.rungs
        for index in self._decision.choice.checkpoints:
            async with aclosing(self._climb.think(rungs[index].tokens)) as thinking:
                async for delta in thinking:
                    yield delta
            if self._climb.ended:
                break
            probe = await self._probed()
            passed = self._looked(index, probe)
            yield passed
            if passed.stops:
                async with aclosing(self._converged(rungs[index], probe)) as events:
                    async for event in events:
                        yield event
                return
        async with aclosing(rest(self._climb)) as events:
            async for event in events:
                yield self._counted(event) if isinstance(event, Completion) else event

    async def _converged(self, rung: ReasoningBudget, probe: Probe) -> AsyncGenerator[ServedEvent]:
        """The answer at a rung: that of the probe where it is whole, else one that is generated behind the cut."""
        if probe.whole:
            yield ContentDelta(probe.text)
            yield self._stopped(self._climb.taken(probe), rung, probe.tokens)
            return
        async with aclosing(self._climb.answer()) as events:
            async for event in events:
                yield self._stopped(event, rung) if isinstance(event, Completion) else event

    def _stopped(self, end: Completion, rung: ReasoningBudget, answered: int = 0) -> Completion:
        finish = FinishReason.CONVERGED if end.finish is FinishReason.FORCED else end.finish
        return self._counted(replace(end, finish=finish, budget=rung), answered)

    def _counted(self, end: Completion, answered: int = 0) -> Completion:
        """The completion with its probes; `answered` tokens of theirs are the answer."""
        spent = sum(one.probe_tokens for one in self._passed) - answered
        return replace(end, probe_tokens=spent, checkpoints=tuple(self._passed))

    async def _probed(self) -> Probe:
        """A probe at this cut. Before anything is thought its failure is the generation's. Raises BackendError."""
        try:
            return await self._climb.probe(PROBE_TOKENS)
        except BackendError as error:
            if not self._climb.tokens:
                raise
            self._observer(Degraded("backend", str(error)))
            return NO_PROBE

    def _looked(self, index: int, probe: Probe) -> Checkpoint:
        """What the rule makes of a probe."""
        score, climb = self._decision.score, self._climb
        quality = None if score is None else score.quality[index]
        key = self._key(probe.text)
        self._evidence = following(self._evidence, key, probe, climb.tokens, climb.ended, quality)
        rung = self._decision.ladder.rungs[index].name
        passed = Checkpoint(rung, probe.text, probe.tokens, self._evidence, self._stops(index, self._evidence))
        self._passed.append(passed)
        return passed

    def _stops(self, index: int, evidence: Evidence) -> bool:
        try:
            return stops(self._rule, index, evidence, self._lookahead)
        except ClassifierError as error:
            self._observer(Degraded("classifier", str(error)))
            return False


async def rest(climb: Climb) -> AsyncGenerator[GenerationEvent]:
    """The rest of a thought, up to the top rung, and its answer. Raises BackendError."""
    async with aclosing(climb.think(None)) as thinking:
        async for delta in thinking:
            yield delta
    async with aclosing(climb.answer()) as events:
        async for event in events:
            yield event
