"""The stage of training that learns from traces, and says which rules within the thought may be certified."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from router.domain import Prompt
from training.arrays import Vector
from training.certification.sequences import PolicySequence
from training.data.splits import SPLITS, split_of
from training.stopping.learned import Lookahead, learn
from training.stopping.sequences import TraceSample, stopping_sequences
from training.stopping.traces import Traces

FEWEST = 50
"""Traces of the fit split below which nothing is learned from them."""


@dataclass(frozen=True)
class Within:
    """What traces have taught.

    Attributes:
        samples: the traces by split.
        lookahead: what a learned rule asks; None = too few traces.
    """

    samples: dict[str, TraceSample]
    lookahead: Lookahead | None

    def sequences(self) -> list[PolicySequence]:
        """The rules that may be certified, in the order of their tests."""
        return stopping_sequences(self.samples["certify"], self.samples["fit"], self.lookahead)

    def held_out(self) -> list[PolicySequence]:
        """The same rules, with the losses of all traces that nothing was learned from."""
        return stopping_sequences(self.samples["certify"].joined(self.samples["test"]), None, self.lookahead)


def within(traces: Traces, quality: Mapping[Prompt, Vector], far: frozenset[Prompt]) -> Within | None:
    """Learn from the fit split; None where a split has no trace, so that nothing could be certified.

    Args:
        quality: P(correct) by the text alone [rungs], by prompt; traces of other prompts are left out.
        far: prompts unlike those that were certified.
    """
    sides = np.array([split_of(group) if prompt in quality else "" for prompt, group in _named(traces)])
    parts = {name: traces.take(np.flatnonzero(sides == name)) for name in SPLITS}
    if not all(len(part) for part in parts.values()):
        return None
    samples = {
        name: TraceSample(
            part,
            np.array([quality[prompt] for prompt in part.prompts]),
            np.array([prompt in far for prompt in part.prompts]),
        )
        for name, part in parts.items()
    }
    fit = samples["fit"]
    # Small matrices gain nothing from a second thread, and wait for it where another process has the core.
    with threadpool_limits(1):
        lookahead = learn(fit.traces, fit.quality) if len(fit.traces) >= FEWEST else None
    return Within(samples, lookahead)


def _named(traces: Traces) -> list[tuple[Prompt, str]]:
    return list(zip(traces.prompts, traces.groups, strict=True))
