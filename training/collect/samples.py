"""Independent answers through the Backend port, several at a time.

Every rung and sample is a request of its own. Where one thought can be cut at every rung, `nested` and `traces` take
fewer tokens.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TypeVar

from router.backends import canary
from router.backends.connect import connect
from router.errors import (
    BackendBusy,
    BackendError,
    BackendMisconfigured,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    InvalidRequest,
)
from router.ports import Backend
from training.collect.answering import answered, next_rung, request_of
from training.collect.judge import JUDGE, Judge, JudgeClient
from training.collect.questions import Question
from training.collect.rows import UNSCORED, Label, unit_result
from training.collect.units import FAILED, Answer, Pocket, Recipe, Unit, UnitResult, failed

A = TypeVar("A")


class SampleCollector:
    """Runs `concurrency` units at a time on an event loop of its own. Raises ArtifactError."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._loop = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._backend = self._loop.run(_open(recipe, self._stack))
        self._judge = None if recipe.judge is None else self._loop.run(_judge(recipe.judge, recipe, self._stack))

    def close(self) -> None:
        """Close the backend and the loop."""
        self._loop.run(self._stack.aclose())
        self._loop.close()

    def run(self, units: Iterable[Unit]) -> Iterator[list[UnitResult]]:
        """Yield results as units are finished. Raises BackendUnavailable if the backend stops answering."""
        self._loop.run(self._check())
        results = self._results(iter(units))
        while batch := self._loop.run(_next(results)):
            yield batch

    async def _check(self) -> None:
        if not await self._backend.ready():
            why = getattr(self._backend, "failure", None) or "backend: it does not answer"
            raise BackendUnavailable(f"{why}; run again to continue")

    async def _results(self, units: Iterator[Unit]) -> AsyncGenerator[list[UnitResult]]:
        under_way: set[asyncio.Task[UnitResult]] = set()
        try:
            while True:
                # A new request starts as soon as one ends: waiting for a whole batch would idle the engine on its
                # slowest answer.
                free = self._recipe.concurrency - len(under_way)
                under_way |= {asyncio.create_task(self._unit(unit)) for unit in islice(units, free)}
                if not under_way:
                    return
                done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                yield [task.result() for task in done]
                under_way -= done
        finally:
            # The caller may stop in the middle (Ctrl-C); requests left running would hold the engine.
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _unit(self, unit: Unit) -> UnitResult:
        rungs = range(len(self._recipe.ladder)) if unit.rung is None else [unit.rung]
        answers = [await self._tried(partial(self._answer, replace(unit, rung=rung))) for rung in rungs]
        return await self._scored(unit, answers)

    async def _scored(self, unit: Unit, answers: Sequence[Answer], drawn: int | None = None) -> UnitResult:
        """The outcomes of a unit's answers, as `unit_result` scores them or as a judge does.

        Raises:
            BackendMisconfigured, BackendUnavailable: the judge refuses the key, or does not answer any more.
        """
        if self._judge is None or unit.question.scorer != JUDGE:
            return unit_result(unit, answers, self._recipe, drawn)
        verdicts: dict[str, float | BackendError] = {}
        for answer in answers:
            if _judgeable(answer) and answer.text not in verdicts:  # equal answers have one verdict
                verdicts[answer.text] = await self._verdict(self._judge, unit.question, answer.text)
        judged = [labelled(answer, verdicts.get(answer.text)) for answer in answers]
        return unit_result(unit, [one for one, _ in judged], self._recipe, drawn, [label for _, label in judged])

    async def _verdict(self, judge: JudgeClient, question: Question, text: str) -> float | BackendError:
        """The judge's verdict, or why there is none on this answer alone."""
        for pause in (*self._recipe.retry_pauses, None):
            try:
                return await judge.verdict(question.transcript, question.reference, text)
            except BackendMisconfigured:
                raise
            except BackendError as error:
                cause = error
            if pause is not None:
                await asyncio.sleep(pause)
        # A judge that is down fails everything else as well; one that says nothing of use fails this answer alone.
        if isinstance(cause, BackendUnavailable | BackendBusy | BackendTimeout):
            raise BackendUnavailable(f"{_of_judge(cause)}; the same command continues") from cause
        return cause

    async def _answer(self, unit: Unit) -> Answer:
        return await answered(self._backend, request_of(unit, self._recipe), next_rung(unit, self._recipe))

    async def _tried(self, attempt: Callable[[], Awaitable[A]]) -> A | Answer:
        """What an attempt gives; a failed answer if the engine refuses the request or fails in every attempt.

        Raises:
            BackendUnavailable: the engine is not ready any more, so every other unit would fail as well.
        """
        cause: BackendError | None = None
        for pause in (*self._recipe.retry_pauses, 0.0):
            try:
                return await attempt()
            except (BackendRefused, InvalidRequest) as error:
                return failed(error)
            except BackendError as error:
                cause = error
                await asyncio.sleep(pause)  # unlike a refusal, such a failure may be over in a second
        await self._check()
        return failed(cause)


async def _open(recipe: Recipe, stack: AsyncExitStack) -> Backend:
    """The recipe's backend, which the stack closes. Raises ArtifactError."""
    if isinstance(recipe.source, Pocket):
        from router.backends.pocket import PocketBackend
        from router.backends.pocket_model import PocketModel

        pocket = PocketBackend(PocketModel.load(recipe.source.directory), os.cpu_count() or 1)
        stack.callback(pocket.close)
        return pocket
    return connect(recipe.source, canary.holds_budgets, stack)


def _judgeable(answer: Answer) -> bool:
    """Whether there is a whole answer to judge."""
    return answer.finish not in UNSCORED and bool(answer.text.strip())


def labelled(answer: Answer, verdict: float | BackendError | None) -> tuple[Answer, Label]:
    """An answer and its label by a judge's verdict; a failed answer where the judge gave none on it."""
    if not _judgeable(answer):
        return answer, (0.0, answer.finish if answer.finish in UNSCORED else "unparsable")
    if isinstance(verdict, float):
        return answer, (verdict, answer.finish)
    return failed(_of_judge(verdict)), (0.0, FAILED.finish)


def _of_judge(error: object) -> str:
    return f"judge: {str(error).removeprefix('backend: ').removeprefix('judge: ')}"


async def _judge(judge: Judge, recipe: Recipe, stack: AsyncExitStack) -> JudgeClient:
    return JudgeClient(judge, recipe.concurrency, stack)


async def _next(results: AsyncGenerator[list[UnitResult]]) -> list[UnitResult]:
    return await anext(results, [])
