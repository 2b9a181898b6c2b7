"""The evidence at every cut, for whole tables; `router.stopping.evidence` has it for one thought as it is served."""

from dataclasses import dataclass

import numpy as np

from training.arrays import Mask, Matrix
from training.stopping.traces import NO_ANSWER, Traces


@dataclass(frozen=True)
class EvidenceTable:
    """What a rule may read at each cut [traces, rungs].

    Attributes:
        stood: how many cuts directly before had the same answer [traces, rungs]; 0 where there is no answer.
        changed: the answer differs from that of the cut before, here or earlier [traces, rungs].
    """

    stood: Matrix
    changed: Mask


def evidence(traces: Traces, first: int = 0) -> EvidenceTable:
    """The evidence of a rule whose first probe is at rung `first`, before which nothing is known."""
    answers = traces.answers
    stood, changed = np.zeros(answers.shape), np.zeros(answers.shape, bool)
    for k in range(first + 1, answers.shape[1]):
        same = answers[:, k] == answers[:, k - 1]
        stood[:, k] = np.where(same & (answers[:, k] != NO_ANSWER), stood[:, k - 1] + 1, 0)
        changed[:, k] = changed[:, k - 1] | ~same
    return EvidenceTable(stood, changed)
