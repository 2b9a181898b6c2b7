"""Does a backend hold its budgets? Short generations that prove it or not."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from router.domain import Completion, CountSource, GenerationRequest, Prompt, ReasoningBudget, Sampling
from router.errors import BackendError, InvalidRequest, RouterError
from router.ports import Backend

PROBE = Prompt.of("State the final answer to the following arithmetic problem: 57 + 87 - 70 + 15 - 8 + 93 - 21 =")
BUDGETS = (0, 8, 64)
FLOOR = 24


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, whether it is as it must be, and what was seen."""

    check: str
    passed: bool
    seen: str


async def examine(backend: Backend) -> AsyncIterator[Finding]:
    """Probe readiness, each of BUDGETS, and a floor."""
    ready = await backend.ready()
    yield Finding("backend ready", ready, "yes" if ready else "it does not answer, or does not serve the model")
    if not ready:
        return
    for budget in BUDGETS:
        yield await _probe(backend, budget, floor=0)
    yield await _probe(backend, 64, FLOOR)


async def _probe(backend: Backend, budget: int, floor: int) -> Finding:
    check = f"budget {budget}" + (f", floor {floor}" if floor else "")
    request = GenerationRequest(PROBE, ReasoningBudget(str(budget), budget), floor, Sampling(max_answer_tokens=64))
    try:
        completion = await _run(backend, request)
    except InvalidRequest as error:
        return Finding(check, floor > 0, f"not offered: {error.problem}")
    except RouterError as error:
        return Finding(check, False, str(error))
    if completion.count_source is CountSource.NONE or completion.thinking_tokens is None:
        return Finding(check, False, "thinking tokens are not reported: nothing can be verified")
    used = completion.thinking_tokens
    return Finding(check, floor <= used <= budget, f"{used} thinking tokens, {completion.finish.value}")


async def _run(backend: Backend, request: GenerationRequest) -> Completion:
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            if isinstance(event, Completion):
                return event
    raise BackendError("the stream ended without a completion")
