"""One answer through the Backend port, as serving would give it."""

import hashlib
from contextlib import aclosing
from dataclasses import replace

from router.backends.attempts import Attempts
from router.digits import counted
from router.domain import (
    SLACK,
    Completion,
    ContentDelta,
    Enforcement,
    FinishReason,
    GenerationRequest,
    ReasoningBudget,
)
from router.errors import BackendError
from router.ports import Backend
from training.collect.units import Answer, Recipe, Unit, failed


def request_of(unit: Unit, recipe: Recipe) -> GenerationRequest:
    """The request of a unit at one rung."""
    assert unit.rung is not None
    sampling = recipe.sampling
    if sampling.seed is not None:
        sampling = replace(sampling, seed=_seed(sampling.seed, unit.key))
    return GenerationRequest(unit.question.asked, recipe.ladder.rungs[unit.rung], sampling=sampling)


def _seed(seed: int, key: str) -> int:
    """A seed of 31 bits for one sample: repeats differ, and a resumed run draws as an unbroken run would."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:4], "big") >> 1


def next_rung(unit: Unit, recipe: Recipe) -> ReasoningBudget:
    """The rung that a second attempt takes, as in serving."""
    assert unit.rung is not None
    return recipe.ladder.rungs[min(unit.rung + 1, len(recipe.ladder) - 1)]


async def answered(backend: Backend, request: GenerationRequest, longer: ReasoningBudget) -> Answer:
    """The answer that serving would give: of a second attempt where the first gave none. Raises BackendError."""
    attempts, text = Attempts(), []
    for budget in attempts.over(request.budget, longer):
        async with aclosing(backend.stream(replace(request, budget=budget))) as events:
            async for event in events:
                if isinstance(event, ContentDelta):
                    text.append(event.text)
                attempts.take(event)
    end = attempts.completion
    if end is None:
        raise BackendError("backend: the stream ended without a completion")
    if end.finish is FinishReason.ABORTED:
        raise BackendError("backend: it gave up in the middle")
    if not held(end):
        return failed(f"the engine thought {counted(end.thinking_tokens or 0, 'token')}, more than the rung allows")
    return Answer(
        "".join(text), end.thinking_tokens, end.answer_tokens, end.finish.value, end.attempts, _thought_ended(end)
    )


def held(end: Completion) -> bool:
    """False where a budget that is enforced was not held: the answer then says nothing about its rung."""
    cap, used = end.budget.tokens, end.thinking_tokens
    if end.attempts > 1 or end.enforcement is Enforcement.HINT or cap is None or used is None:
        return True
    return used <= cap + SLACK


def _thought_ended(end: Completion) -> str | None:
    """How the thought of a generation ended, in the words of the outcome schema; None where nobody knows."""
    if end.finish in (FinishReason.NATURAL, FinishReason.FORCED):
        return "natural" if end.finish is FinishReason.NATURAL else "cut"
    cap, used = end.budget.tokens, end.thinking_tokens
    # A truncated answer says only how long its thought was, and only where there was one attempt.
    if end.finish is not FinishReason.TRUNCATED or end.attempts > 1 or cap is None or used is None:
        return None
    return "natural" if used < cap - SLACK else "cut" if used >= cap else None
