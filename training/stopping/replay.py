"""Every way to choose a budget, replayed on one file: what it would have answered, and what it would have spent."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from router.domain import BudgetLadder
from router.stopping.rules import AgreeRule, LearnedRule, StoppingRule, ThresholdRule
from training.arrays import Fold, Matrix, Rows
from training.certification.betting import Groups, betting_p_value
from training.certification.rules import PRICES
from training.evaluation import metrics
from training.evaluation.spending import share_saved
from training.model.embedding import Embedding
from training.model.families import ModelFamily, PooledLogit
from training.model.fit import fit
from training.progress import say
from training.stopping.learned import learn
from training.stopping.rules import Stops, fixed, follow
from training.stopping.traces import Traces

FOLDS = 5
MATCHES = (1, 2, 3)
PROBABILITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SHOWN_PRICES = PRICES[::20]
"""Prices of the top rung's mean thought, in P(correct), of the learned rules and text rules that are shown."""

TEXT_FAMILY: dict[str, ModelFamily] = {"pooled logit": PooledLogit(1e-3)}
"""The text rule of a replay has one form; `fit` compares several."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class ReplayRow:
    """One policy on all traces of the file; what is learned predicts prompts that it has not seen.

    Attributes:
        family: fixed, agree, threshold, text or learned.
        accuracy: mean correctness of the answers given.
        loss: accuracy at the top less this one, with its 95 % interval over groups.
        thinking_tokens, probe_tokens: means per trace.
        saved: share of the top's thinking tokens that is not spent, probes charged, with its 95 % interval.
        p_value: of the hypothesis that it loses more than the target. It proves something of a policy alone that was
            named before the file was seen.
    """

    family: str
    policy: str
    accuracy: float
    loss: float
    loss_interval: Interval
    thinking_tokens: float
    probe_tokens: float
    saved: float
    saved_interval: Interval
    p_value: float


def replay(traces: Traces, max_loss: float, embedding: Embedding | None = None) -> list[ReplayRow]:
    """The rows of every family that the traces have evidence for, fixed rungs first.

    Args:
        max_loss: the target of the p-values.
        embedding: of the text rule; None leaves the text out.
    """
    stopped = [*_fixed(traces), *_probing(traces), *_learned(traces, embedding)]
    shown = tqdm(stopped, desc="replay", unit="policy", leave=False, disable=None)
    return [described(traces, *one, max_loss) for one in shown]


Replayed = tuple[str, str, Stops]
"""The family of a policy, its name, and where it stops."""


def named(rule: StoppingRule, ladder: BudgetLadder) -> str:
    """A rule in a few words."""
    first = ladder.rungs[rule.first].name
    match rule:
        case AgreeRule():
            return f"agree {rule.matches} from {first}"
        case ThresholdRule():
            return f"P(answer) >= {math.exp(rule.least_logprob):.2g} from {first}"
        case LearnedRule():
            return f"learned, {rule.price:.2g} P(correct) a token"


def _fixed(traces: Traces) -> Iterator[Replayed]:
    names = [rung.name for rung in traces.ladder.rungs]
    for k, name in enumerate(names):
        yield "fixed", f"always {name}" + (" (top)" if k == len(names) - 1 else ""), fixed(traces, k)


def _probing(traces: Traces) -> Iterator[Replayed]:
    """Rules that learn nothing."""
    for matches in MATCHES if traces.has_answers else ():
        for first in range(len(traces.ladder) - 1 - matches):
            agree = AgreeRule(first, matches)
            yield "agree", named(agree, traces.ladder), follow(traces, agree)
    for p in PROBABILITIES if traces.has_logprobs else ():
        sure = ThresholdRule(0, math.log(p))
        yield "threshold", named(sure, traces.ladder), follow(traces, sure)


def _learned(traces: Traces, embedding: Embedding | None) -> Iterator[Replayed]:
    """The text rule and the learned rule at several prices; models predict groups that they have not seen."""
    folds = list(GroupKFold(FOLDS, shuffle=True, random_state=0).split(traces.correct, groups=traces.groups))
    top = float(traces.thinking_tokens[:, -1].mean())
    quality = None if embedding is None else _text_quality(traces, embedding, folds)
    for price in SHOWN_PRICES if quality is not None else ():
        worth = quality - price / top * traces.thinking_tokens.mean(axis=0)
        yield "text", f"text, price {price:.3g}", _at(traces, worth.argmax(axis=1))
    if not traces.has_answers:
        return
    # The text is no evidence here: its forecasts for the prompts to learn from would have to be out of fold once more.
    with threadpool_limits(1):
        learned = [learn(traces.take(rows)) for rows, _ in folds]
    for price in SHOWN_PRICES:
        rule = LearnedRule(0, price / top)
        parts = [follow(traces.take(held), rule, one) for (_, held), one in zip(folds, learned, strict=True)]
        yield "learned", f"learned, price {price:.3g}", _joined([held for _, held in folds], parts)


def _text_quality(traces: Traces, embedding: Embedding, folds: Sequence[Fold]) -> Matrix:
    """P(correct) by the text alone [traces, rungs]."""
    say(f"text rule: {len(traces):,} prompts in {len(folds)} folds")
    outcomes, quality = traces.outcomes(), np.zeros(traces.correct.shape)
    for rows, held in tqdm(folds, desc="text rule", unit="fold", leave=False, disable=None):
        fitted = fit(outcomes.take(rows), embedding, candidates=TEXT_FAMILY)
        quality[held] = fitted.predict([traces.prompts[i] for i in held]).quality
    return quality


def _at(traces: Traces, rung: Rows) -> Stops:
    return Stops(rung, traces.thinking_tokens[np.arange(len(traces)), rung], np.zeros(len(traces)))


def _joined(places: Sequence[Rows], parts: Sequence[Stops]) -> Stops:
    """The stops of all parts, each at its places."""
    order = np.argsort(np.concatenate(places))
    return Stops(
        *(np.concatenate([getattr(part, name) for part in parts])[order] for name in ("rung", "thinking", "probes"))
    )


def described(traces: Traces, family: str, policy: str, stopped: Stops, max_loss: float) -> ReplayRow:
    """The row of a policy that stops where `stopped` says."""
    losses, top = stopped.losses(traces), traces.thinking_tokens[:, -1]
    samples = metrics.bootstrap_means(traces.groups, np.column_stack([losses, stopped.spent, top]))
    saved = float(1 - stopped.spent.mean() / top.mean()) if top.mean() else 0.0
    return ReplayRow(
        family,
        policy,
        float(traces.correct[:, -1].mean() - losses.mean()),
        float(losses.mean()),
        metrics.bootstrap_interval(samples[:, 0]),
        float(stopped.thinking.mean()),
        float(stopped.probes.mean()),
        saved,
        metrics.bootstrap_interval(share_saved(samples[:, 1], samples[:, 2])),
        betting_p_value(Groups(traces.groups).means(losses), max_loss),
    )
