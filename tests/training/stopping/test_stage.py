"""Rules within the thought are certified where they are good, and nowhere else."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router.bundle.manifest import Bundle, ParitySample
from router.domain import BudgetLadder, Prompt, ReasoningBudget
from router.errors import ArtifactError
from router.scoring.lookahead import OnnxLookahead
from router.stopping.evidence import WIDTH, Evidence, numbers
from router.stopping.rules import AgreeRule, LearnedRule, StoppingCertificate
from training.certification.betting import DELTA
from training.certification.certify import certify, stopping_target
from training.certification.sequences import Sample, policy_sequences, shared
from training.data.splits import split_of
from training.prediction import Prediction
from training.stopping.graph import exported
from training.stopping.stage import Within, within
from training.stopping.traces import Traces

CAPS = (0, 100, 200, 400, 800)
TOP = len(CAPS) - 1


def settled(random: np.random.Generator, n: int, told: bool = True) -> Traces:
    """Thoughts that come to their answer at a rung of their own, and are talked out of it in one of fifteen at the top.

    Args:
        told: answers and log-probabilities show it; else both are noise.
    """
    shape, places = (n, len(CAPS)), np.arange(len(CAPS))
    settles = random.integers(0, TOP, n)[:, None]
    right = random.random(n) < 0.8
    correct = np.where(places >= settles, right[:, None], random.random(shape) < 0.1)
    correct[:, TOP] &= random.random(n) > 1 / 15
    answers = np.where(correct, 0, random.integers(1, 1_000, shape))
    wrong = np.where(places >= settles, 1, answers)
    answers = np.where(right[:, None], answers, wrong)
    logprob = np.where(places >= settles, -0.01, -2.0)
    if not told:
        answers, logprob = random.integers(0, 3, shape), np.full(shape, -0.1)
    nothing = np.full(shape, np.nan)
    return Traces(
        "m",
        BudgetLadder(tuple(ReasoningBudget(str(cap), cap) for cap in CAPS)),
        [Prompt.of(f"p{i}") for i in range(n)],
        [f"g{i}" for i in range(n)],
        [""] * n,
        answers=answers,
        ended=np.zeros(shape, bool),
        correct=correct.astype(float),
        thinking_tokens=np.broadcast_to(np.array(CAPS, float), shape).copy(),
        total_tokens=nothing,
        probe_tokens=np.full(shape, 5.0),
        probe_logprob=logprob,
        probe_min_logprob=logprob,
        end_logprob=nothing,
    )


def learnt(traces: Traces) -> Within:
    """What the traces teach beside a text that says nothing."""
    flat = np.broadcast_to(traces.correct.mean(axis=0), traces.correct.shape)
    taught = within(traces, dict(zip(traces.prompts, flat, strict=True)), frozenset())
    assert taught is not None
    return taught


def samples(traces: Traces) -> tuple[Sample, Sample]:
    """The certify and the fit split, with the predictions of a text that says nothing."""
    outcomes, every = traces.outcomes(), np.arange(len(traces))
    sides = np.array([split_of(group) for group in traces.groups])
    parts = []
    for side in ("certify", "fit"):
        part = outcomes.take(every[sides == side])
        quality = np.broadcast_to(outcomes.correct.mean(axis=0), part.correct.shape).copy()
        quantiles = np.repeat(part.thinking_tokens[:, :, None], 3, axis=2)
        parts.append((part, Prediction(quality, part.thinking_tokens, quantiles)))
    return parts[0], parts[1]


@pytest.fixture(scope="module")
def told() -> Traces:
    return settled(np.random.default_rng(0), 900)


def test_rules_that_see_the_answer_settle_are_certified_and_save(told: Traces) -> None:
    proofs = certify(*samples(told), learnt(told).sequences())
    assert {one.alpha for one in proofs.stopping} >= {0.02, 0.05}
    for one in proofs.stopping:
        assert one.thinking_tokens + one.probe_tokens < 0.7 * CAPS[TOP]
        assert one.delta == DELTA and one.prompts > 100


def test_evidence_that_is_worth_nothing_certifies_nothing() -> None:
    noise = settled(np.random.default_rng(1), 900, told=False)
    proofs = certify(*samples(noise), learnt(noise).sequences())
    assert proofs.stopping == ()
    assert set(proofs.refused) >= {stopping_target(alpha) for alpha in (0.01, 0.02, 0.05)}


def test_where_thoughts_are_short_probes_cost_more_than_they_save(told: Traces) -> None:
    dear = replace(told, probe_tokens=np.full(told.answers.shape, 2_000.0))
    proofs = certify(*samples(dear), learnt(dear).sequences())
    assert proofs.stopping == ()
    assert proofs.refused[stopping_target(0.05)].startswith("no saving: the best rule takes ")


def test_all_sequences_share_one_delta(told: Traces) -> None:
    stopping = learnt(told).sequences()
    assert [one.name for one in stopping] == ["agreement", "thresholds", "learned stopping"]
    fixed, learned, others = shared(*policy_sequences(*samples(told)), stopping)
    assert math.fsum(one.delta for one in (fixed, learned, *others)) == pytest.approx(DELTA)


def test_prompts_that_are_far_go_to_the_top_and_are_not_probed(told: Traces) -> None:
    some = frozenset(told.prompts[::3])
    taught = within(told, dict.fromkeys(told.prompts, np.full(len(CAPS), 0.5)), some)
    assert taught is not None
    sample = taught.samples["certify"]
    assert sample.far is not None and sample.far.any()
    stopped = sample.stops(AgreeRule(0, 1))
    assert (stopped.rung[sample.far] == TOP).all() and not stopped.probes[sample.far].any()


def test_a_split_without_a_trace_teaches_nothing(told: Traces) -> None:
    assert within(told.take(np.arange(1)), {told.prompts[0]: np.full(len(CAPS), 0.5)}, frozenset()) is None


def bundle_with(bundle: Bundle, traces: Traces, **parity: Any) -> tuple[Bundle, Within]:
    """A bundle with the lookahead of these traces."""
    taught = learnt(traces)
    made = exported([StoppingCertificate(0.02, 0.1, LearnedRule(0, 0.0), 100, 1.0, 1.0)], taught)
    assert made is not None and made.worst < 1e-5
    cuts = parity.get("cuts", made.cuts)
    manifest = replace(bundle.manifest, ladder=traces.ladder)
    return replace(bundle, manifest=manifest, lookahead=made.graph, parity=ParitySample([], [], cuts)), taught


def test_serving_predicts_what_training_predicted(bundle: Bundle, told: Traces) -> None:
    with_lookahead, taught = bundle_with(bundle, told)
    assert taught.lookahead is not None
    evidence = Evidence("key", 1, True, -0.01, -0.02, None, 200, False, 0.4)
    seen = np.zeros((1, len(CAPS), WIDTH))
    seen[0, 2] = numbers(evidence)
    quality, more = OnnxLookahead(with_lookahead).ahead(2, evidence)
    np.testing.assert_allclose(quality, taught.lookahead.quality(seen)[0, 2], atol=1e-5)
    np.testing.assert_allclose(more, taught.lookahead.more[2], rtol=1e-5)


def test_another_graph_than_the_certified_one_is_refused(bundle: Bundle, told: Traces) -> None:
    with_lookahead, _ = bundle_with(bundle, told)
    position, seen, quality = with_lookahead.parity.cuts[0]
    wrong = ParitySample([], [], [(position, seen, [p + 0.01 for p in quality])])
    for spoilt in (
        replace(with_lookahead, parity=wrong),
        replace(with_lookahead, parity=ParitySample([], [])),
        replace(with_lookahead, lookahead=b"no graph"),
        replace(with_lookahead, parity=ParitySample([], [], [(99, seen, quality)])),
    ):
        with pytest.raises(ArtifactError, match=r"^lookahead\.onnx: "):
            OnnxLookahead(spoilt)


def test_no_graph_where_no_learned_rule_is_certified(told: Traces) -> None:
    assert exported([StoppingCertificate(0.02, 0.1, AgreeRule(0, 1), 100, 1.0, 1.0)], learnt(told)) is None
