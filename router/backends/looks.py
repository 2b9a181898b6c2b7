"""A look at the answer behind a thought as it is, for stopping rules and for what is learned."""

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace

from router.backends.counting import estimate
from router.backends.failures import MappedErrors
from router.backends.thought import Thought
from router.backends.two_phase import TwoPhase
from router.domain import Completion, ContentDelta, FinishReason, GenerationRequest, Sampling
from router.errors import BackendError
from router.stopping.evidence import Probe, probed


async def probe(phases: TwoPhase, request: GenerationRequest, thought: Thought, *, end: bool = True) -> Probe:
    """The answer of phase 2, with its log-probabilities and without the completion. Raises BackendError.

    Args:
        end: ask for the log-probability of the end marker as well, which is another request.
    """
    if not end:
        return (await observed(phases, request, thought))[0]
    looking = observed(phases, request, thought), end_logprob(phases, request, thought)
    (seen, _), ends = await asyncio.gather(*looking)
    return replace(seen, end_logprob=ends)


async def observed(phases: TwoPhase, request: GenerationRequest, thought: Thought) -> tuple[Probe, Completion]:
    """The answer of phase 2 with its log-probabilities, and its completion. Raises BackendError."""
    request = replace(request, sampling=replace(request.sampling, logprobs=True, top_logprobs=0))
    phase, text, end = phases.answer_phase(request, thought), "", None
    async with aclosing(phases.answer(request, thought, phase)) as events:
        async for event in events:
            text += event.text if isinstance(event, ContentDelta) else ""
            end = event if isinstance(event, Completion) else end
    assert end is not None
    whole = end.finish in (FinishReason.NATURAL, FinishReason.FORCED)
    return probed(text, phase.drawn or estimate(text), whole, phase.logprobs, stop=end.stop), end


async def end_logprob(phases: TwoPhase, request: GenerationRequest, thought: Thought) -> float | None:
    """Log-probability of the end marker as the next token of a thought that was cut.

    Of a marker beyond the likeliest tokens it is that of the last of them, which is more. None where there is no such
    token, or the engine does not say.
    """
    borders, client = phases.borders, phases.client
    if len(borders.end) != 1 or not thought.ids or thought.natural or thought.failed is not None:
        return None
    chances: dict[int | str, float] = {}
    greedy = Sampling(temperature=0.0, seed=request.sampling.seed)
    with suppress(BackendError):  # evidence, without which there is an answer all the same
        ids = [*thought.prompt, *thought.ids]
        async with aclosing(client.complete(ids, greedy, 1, extra=client.api.likeliest)) as arriving:
            async for chunks in arriving:
                with MappedErrors():
                    for chunk in chunks:
                        chances |= client.api.chances(chunk)
    if not chances:
        return None
    return chances.get(borders.end[0], chances.get(borders.markers.end, min(chances.values())))
