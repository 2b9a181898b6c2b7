"""Thinks from rung to rung under a stopping rule, and answers where it says so."""

import asyncio
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
    ReasoningDelta,
    ServedEvent,
)
from router.errors import BackendError, ClassifierError
from router.events import Degraded
from router.ports import Climb, Observer
from router.stopping.evidence import PROBE_TOKENS, Evidence, Probe, following
from router.stopping.rules import LearnedRule, Lookahead, StoppingRule, stops

Key = Callable[[str], str | None]
"""Makes the key of an answer; None where the text holds no answer."""

NO_PROBE = Probe("", 0, whole=False)
"""Stands for a probe that failed: nothing is known of this cut."""


class Segment:
    """A part of a thought; in the background it is thought at once, else when it is read."""

    def __init__(self, deltas: AsyncGenerator[ReasoningDelta], background: bool) -> None:
        self._deltas = deltas
        self._waiting: asyncio.Queue[ReasoningDelta | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._think()) if background else None

    async def deltas(self) -> AsyncGenerator[ReasoningDelta]:
        """Its deltas. Raises InvalidRequest, BackendError."""
        if self._task is None:
            async for delta in self._deltas:
                yield delta
            return
        while (waiting := await self._waiting.get()) is not None:
            yield waiting
        await self._task

    async def close(self) -> None:
        """Stop it, where it has not ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._deltas.aclose()

    async def _think(self) -> None:
        try:
            async for delta in self._deltas:
                self._waiting.put_nowait(delta)
        finally:
            self._waiting.put_nowait(None)


class StoppingClimber:
    """One generation under a stopping rule.

    A thought that ends by itself is answered at once, and so is one at the top rung. A probe that fails is no evidence,
    so the thought goes on. So it does where a learned rule's graph fails.

    Args:
        climb: a thought that has not begun, bounded by the top rung.
        key: as the outcomes were compared that the rule is certified on.
        greedy: answers are drawn greedily, as probes are, so that a whole probe is the answer.
        ahead: think on while an answer is probed: that takes less time, and what is thought meanwhile is in vain where
            the rule stops.

    Attributes:
        cut: the thought as it was when it was last probed.
    """

    def __init__(
        self,
        climb: Climb,
        decision: Decision,
        rule: StoppingRule,
        key: Key,
        observer: Observer,
        lookahead: Lookahead | None = None,
        *,
        greedy: bool,
        ahead: bool = False,
    ) -> None:
        self.cut = self._climb = climb
        self._greedy = greedy
        self._ahead = ahead
        self._decision = decision
        self._rule = rule
        self._key = key
        self._observer = observer
        self._lookahead = lookahead
        self._evidence: Evidence | None = None
        self._passed: list[Checkpoint] = []

    async def stream(self) -> AsyncGenerator[ServedEvent]:
        """Deltas and checkpoints, then the completion. Raises InvalidRequest, BackendError."""
        caps = [self._decision.ladder.rungs[index].tokens for index in self._decision.choice.checkpoints]
        thinking = Segment(self._climb.think(caps[0]), self._ahead)
        try:
            for index, upto in zip(self._decision.choice.checkpoints, [*caps[1:], None], strict=True):
                async with aclosing(thinking.deltas()) as deltas:
                    async for delta in deltas:
                        yield delta
                if self._climb.ended:
                    break
                self.cut = self._climb.fork() if self._ahead else self._climb
                thinking = Segment(self._climb.think(upto), self._ahead)
                probe = await self._probed()
                passed = self._looked(index, probe)
                if passed.stops:
                    await thinking.close()  # before a caller takes its time with the checkpoint
                yield passed
                if passed.stops:
                    async with aclosing(self._converged(self._decision.ladder.rungs[index], probe)) as events:
                        async for event in events:
                            yield event
                    return
            async with aclosing(thinking.deltas()) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            await thinking.close()
        async with aclosing(self._climb.answer()) as events:
            async for event in events:
                yield self._counted(event) if isinstance(event, Completion) else event

    async def _converged(self, rung: ReasoningBudget, probe: Probe) -> AsyncGenerator[ServedEvent]:
        """The answer at a rung: the probe where it is whole and drawn as asked, else one generated behind the cut."""
        if probe.whole and self._greedy:
            yield ContentDelta(probe.text)
            yield self._stopped(self.cut.taken(probe), rung, probe.tokens)
            return
        async with aclosing(self.cut.answer()) as events:
            async for event in events:
                yield self._stopped(event, rung) if isinstance(event, Completion) else event

    def _stopped(self, end: Completion, rung: ReasoningBudget, answered: int = 0) -> Completion:
        finish = FinishReason.CONVERGED if end.finish is FinishReason.FORCED else end.finish
        in_vain = self._climb.tokens - self.cut.tokens
        return self._counted(replace(end, finish=finish, budget=rung), in_vain - answered)

    def _counted(self, end: Completion, more: int = 0) -> Completion:
        """The completion with the tokens of its probes, and some more."""
        spent = sum(one.probe_tokens for one in self._passed) + more
        return replace(end, probe_tokens=spent, checkpoints=tuple(self._passed))

    async def _probed(self) -> Probe:
        """A probe at this cut. Before anything is thought its failure is the generation's. Raises BackendError."""
        try:
            return await self.cut.probe(PROBE_TOKENS, end=isinstance(self._rule, LearnedRule))
        except BackendError as error:
            if not self.cut.tokens:
                raise
            self._observer(Degraded("backend", str(error)))
            return NO_PROBE

    def _looked(self, index: int, probe: Probe) -> Checkpoint:
        """What the rule makes of a probe."""
        score, cut = self._decision.score, self.cut
        quality = None if score is None else score.quality[index]
        key = self._key(probe.text)
        self._evidence = following(self._evidence, key, probe, cut.tokens, cut.ended, quality)
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
