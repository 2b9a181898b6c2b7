"""What a thought's cuts say about its answer: one definition for collection, training and serving.

A probe is the short answer behind a cut. Evidence is what the cuts so far have shown together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

PROBE_TOKENS = 32
"""Tokens of a probe, at most."""

LEAST_LOGPROB = -100.0
"""The smallest log-probability that is kept: engines write their own numbers for what cannot happen."""

LEAST_NUMBER = -10.0
"""The smallest log-probability that a learned rule sees: what is less likely is equally unlikely."""

LEAST_QUALITY = 1e-3
"""P(correct) stays this far from 0 and 1 for a learned rule."""

STOOD = (1, 2, 3)
"""How often an answer has stood, as a learned rule counts it."""

WIDTH = 1 + len(STOOD) + 1 + 1 + 3 + 1
"""Numbers of the evidence that a learned rule sees."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The short answer behind a cut, drawn greedily.

    Attributes:
        text: the answer so far, as it would be passed on.
        tokens: how many were drawn.
        whole: the answer ended by itself within its tokens.
        mean_logprob, min_logprob: of the answer's tokens; None where the engine does not say.
        end_logprob: log-probability of the end marker at the cut; None where the engine does not say.
        stop: the stop string before which the answer ends; None = it does not end by one.
    """

    text: str
    tokens: int
    whole: bool
    mean_logprob: float | None = None
    min_logprob: float | None = None
    end_logprob: float | None = None
    stop: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the cuts up to this one have shown.

    Attributes:
        key: the answer in the form in which answers are compared; None = no answer was found.
        stood: how many cuts directly before this one had the same key; 0 where there is none.
        changed: the key of some cut differs from that of the cut before it.
        mean_logprob, min_logprob, end_logprob: as in the probe.
        tokens: thinking tokens so far.
        ended: the thought has ended by itself.
        quality: P(correct) at this rung by the text alone; None = it was not scored.
    """

    key: str | None
    stood: int
    changed: bool
    mean_logprob: float | None
    min_logprob: float | None
    end_logprob: float | None
    tokens: int
    ended: bool
    quality: float | None


def following(
    previous: Evidence | None, key: str | None, probe: Probe, tokens: int, ended: bool, quality: float | None = None
) -> Evidence:
    """The evidence at a cut.

    Args:
        previous: the evidence at the cut before; None = this is the first one.
        key: of the probe's answer.
        tokens: thinking tokens up to this cut.
        ended: the thought has ended by itself.
        quality: P(correct) at this rung by the text alone.
    """
    stood = previous.stood + 1 if previous is not None and key is not None and key == previous.key else 0
    changed = previous is not None and (previous.changed or key != previous.key)
    said = (probe.mean_logprob, probe.min_logprob, probe.end_logprob)
    return Evidence(key, stood, changed, *said, tokens, ended, quality)


def probed(
    text: str,
    tokens: int,
    whole: bool,
    logprobs: Sequence[float],
    end_logprob: float | None = None,
    *,
    stop: str | None = None,
) -> Probe:
    """A probe from the log-probabilities of its tokens; none of them = unknown."""
    mean = sum(logprobs) / len(logprobs) if logprobs else None
    return Probe(text, tokens, whole, mean, min(logprobs, default=None), end_logprob, stop=stop)


def numbers(evidence: Evidence) -> list[float]:
    """The evidence as WIDTH numbers, for learned rules; what is unknown is 0."""
    logprobs = (evidence.mean_logprob, evidence.min_logprob, evidence.end_logprob)
    known = [max(one, LEAST_NUMBER) if one is not None else 0.0 for one in logprobs]
    return [
        float(evidence.key is None),
        *(float(evidence.stood >= cuts) for cuts in STOOD),
        float(evidence.changed),
        float(evidence.mean_logprob is not None),
        *known,
        0.0 if evidence.quality is None else _logit(evidence.quality),
    ]


def _logit(p: float) -> float:
    bounded = min(max(p, LEAST_QUALITY), 1 - LEAST_QUALITY)
    return math.log(bounded / (1 - bounded))
