"""Rules over tables stop where they stop while a thought is generated."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from router.stopping.evidence import WIDTH, Evidence, Probe, following, numbers
from router.stopping.rules import AgreeRule, LearnedRule, StoppingRule, ThresholdRule, stops
from tests.support.traces import CAPS, CUTS, traces
from training.stopping.learned import Lookahead, features
from training.stopping.rules import fixed, follow
from training.stopping.traces import NO_ANSWER, Traces


class Asked:
    """A lookahead that answers one cut at a time."""

    def __init__(self, table: Lookahead) -> None:
        self._table = table

    def ahead(self, position: int, evidence: Evidence) -> tuple[list[float], list[float]]:
        """As `router.stopping.rules.Lookahead`."""
        seen = np.zeros((1, len(CAPS), WIDTH))
        seen[0, position] = numbers(evidence)
        return self._table.quality(seen)[0, position].tolist(), self._table.more[position].tolist()


def cut(table: Traces, row: int, k: int) -> tuple[str | None, Probe]:
    """The key and the probe at a cut."""
    code, said = int(table.answers[row, k]), (table.probe_logprob, table.probe_min_logprob, table.end_logprob)
    known = [None if np.isnan(one[row, k]) else float(one[row, k]) for one in said]
    return None if code == NO_ANSWER else str(code), Probe("", int(table.probe_tokens[row, k]), True, *known)


def served(table: Traces, row: int, rule: StoppingRule, asked: Asked, quality: list[float]) -> tuple[int, int, int]:
    """The rung at which a thought stops that is generated step by step, its tokens, and those of its probes."""
    seen, probes = None, 0
    for k in range(CUTS):
        if table.ended[row, k]:
            return k, int(table.thinking_tokens[row, k]), probes
        if k < rule.first:
            continue
        key, probe = cut(table, row, k)
        seen = following(seen, key, probe, CAPS[k], False, quality[k])
        probes += probe.tokens
        if stops(rule, k, seen, asked):
            return k, int(table.thinking_tokens[row, k]), probes
    return CUTS, int(table.thinking_tokens[row, CUTS]), probes


rules = st.one_of(
    st.builds(AgreeRule, st.integers(0, 2), st.integers(1, 3)),
    st.builds(ThresholdRule, st.integers(0, 2), st.floats(-3, 0)),
    st.builds(LearnedRule, st.integers(0, 2), st.floats(0, 1e-2)),
)


@given(rules, st.integers(0, 1000))
def test_a_table_stops_where_serving_stops(rule: StoppingRule, seed: int) -> None:
    random = np.random.default_rng(seed)
    table, quality = traces(random, 8), random.random((8, len(CAPS)))
    shape = (CUTS, WIDTH, len(CAPS))
    lookahead = Lookahead(random.normal(size=shape), random.normal(size=shape[::2]), random.uniform(0, 300, shape[::2]))
    stopped = follow(table, rule, lookahead, quality)
    for row in range(len(table)):
        expected = served(table, row, rule, Asked(lookahead), quality[row].tolist())
        assert (stopped.rung[row], stopped.thinking[row], stopped.probes[row]) == expected


@given(st.integers(0, 1000))
def test_the_evidence_of_a_table_is_that_of_its_cuts(seed: int) -> None:
    random = np.random.default_rng(seed)
    table, quality = traces(random, 4), random.random((4, len(CAPS)))
    seen = features(table, quality)
    for row in range(len(table)):
        evidence = None
        for k in range(len(CAPS)):
            evidence = following(evidence, *cut(table, row, k), CAPS[k], False, quality[row, k])
            np.testing.assert_allclose(seen[row, k], numbers(evidence))


def test_a_rule_that_never_stops_thinks_to_the_top_and_pays_for_its_probes() -> None:
    table = traces(np.random.default_rng(0), 20)
    never = follow(table, ThresholdRule(0, 0.1))
    going = ~table.ended[:, CUTS - 1]
    assert going.any() and (never.rung[going] == CUTS).all()
    assert (never.probes[going] == table.probe_tokens[going, :CUTS].sum(axis=1)).all()
    np.testing.assert_array_equal(never.losses(table)[going], 0)


def test_a_fixed_rung_probes_nothing() -> None:
    assert fixed(traces(np.random.default_rng(0), 5), 1).spent.tolist() == [100.0] * 5
