"""Stopping rules over tables of traces: where each thought stops, and what that costs.

`router.stopping.rules` follows the same rules while a thought is generated.
"""

from dataclasses import dataclass

import numpy as np

from router.stopping.rules import AgreeRule, LearnedRule, StoppingRule, ThresholdRule
from training.arrays import Mask, Matrix, Rungs, Vector
from training.stopping.evidence import evidence
from training.stopping.learned import Lookahead, features
from training.stopping.traces import NO_ANSWER, Traces


@dataclass(frozen=True)
class Stops:
    """Where thoughts stop under a rule, by trace.

    Attributes:
        rung: position of the cut whose answer is given.
        thinking: thinking tokens used.
        probes: tokens of all probes, those of a probe that became the answer included.
    """

    rung: Rungs
    thinking: Vector
    probes: Vector

    @property
    def spent(self) -> Vector:
        """Thinking tokens and tokens of probes."""
        return self.thinking + self.probes

    def where(self, these: Mask, others: "Stops") -> "Stops":
        """The stops of `these` [traces], and of all others those in `others`."""
        return Stops(
            np.where(these, self.rung, others.rung),
            np.where(these, self.thinking, others.thinking),
            np.where(these, self.probes, others.probes),
        )

    def losses(self, traces: Traces) -> Vector:
        """Correctness at the top of each trace minus that of the answer given, in -1..1."""
        return np.asarray(traces.correct[:, -1] - traces.correct[np.arange(len(traces)), self.rung])


def walk(traces: Traces, stopping: Mask, first: int) -> Stops:
    """Think from cut to cut until a probe says stop, the thought ends by itself, or the top rung is reached.

    Args:
        stopping: what the rule says at each cut, should a thought come there [traces, rungs].
        first: position of the first rung that is probed.
    """
    positions = np.arange(stopping.shape[1])
    done = traces.ended | (stopping & (positions >= first))
    done[:, -1] = True
    rung = done.argmax(axis=1)
    probed = (positions >= first) & (positions < len(positions) - 1) & (positions <= rung[:, None]) & ~traces.ended
    thinking = traces.thinking_tokens[np.arange(len(traces)), rung]
    return Stops(rung, thinking, np.where(probed, traces.probe_tokens, 0.0).sum(axis=1))


def fixed(traces: Traces, rung: int) -> Stops:
    """Stop at one rung for everybody, without a probe; -1 is the top."""
    thinking = traces.thinking_tokens[:, rung]
    return Stops(np.full(len(traces), rung % len(traces.ladder)), thinking, np.zeros(len(traces)))


def follow(
    traces: Traces, rule: StoppingRule, lookahead: Lookahead | None = None, quality: Matrix | None = None
) -> Stops:
    """Where thoughts stop under a rule.

    Args:
        lookahead: what a learned rule asks.
        quality: P(correct) by the text alone [traces, rungs], which a learned rule reads.
    """
    match rule:
        case AgreeRule():
            stopping = evidence(traces, rule.first).stood >= rule.matches
        case ThresholdRule():
            stopping = np.nan_to_num(traces.probe_logprob, nan=-np.inf) >= rule.least_logprob
        case LearnedRule():
            assert lookahead is not None
            stopping = lookahead.stopping(lookahead.quality(features(traces, quality, rule.first)), rule.price)
    return walk(traces, stopping & (traces.answers != NO_ANSWER), rule.first)
