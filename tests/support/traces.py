"""Traces of a model that never was, for rules that stop within the thought."""

import numpy as np

from router.domain import BudgetLadder, Prompt, ReasoningBudget
from training.stopping.traces import NO_ANSWER, Traces

CAPS = (0, 100, 200, 400)
CUTS = len(CAPS) - 1
"""Rungs below the top."""


def traces(random: np.random.Generator, n: int) -> Traces:
    """Thoughts with answers among three, some of which end by themselves; all figures are drawn by chance."""
    shape = (n, len(CAPS))
    logprob = -random.exponential(1.0, shape)
    logprob[random.random(shape) < 0.2] = np.nan
    return Traces(
        "m",
        BudgetLadder(tuple(ReasoningBudget(str(cap), cap) for cap in CAPS)),
        [Prompt.of(f"p{i}") for i in range(n)],
        [f"g{i}" for i in range(n)],
        [""] * n,
        answers=random.integers(NO_ANSWER, 3, shape),
        ended=np.logical_or.accumulate(random.random(shape) < 0.15, axis=1),
        correct=random.integers(0, 2, shape).astype(float),
        thinking_tokens=np.broadcast_to(np.array(CAPS, float), shape).copy(),
        total_tokens=np.full(shape, np.nan),
        probe_tokens=random.integers(1, 20, shape).astype(float),
        probe_logprob=logprob,
        probe_min_logprob=logprob * 2,
        end_logprob=np.full(shape, np.nan),
    )
