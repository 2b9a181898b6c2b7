"""`make stopping`: what each way to choose certifies and saves on its own, and all of them together.

Every family has the whole delta here, as if it were the only one; the last row is what `fit` certifies, where all
families share one delta. Models learn from the fit split, tests read the fit and certify splits, figures are those of
the test split. Probes are charged. Also shows the same with evidence that is worth nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from benchmarks import public_sets
from benchmarks.harness import OUTCOMES, RESULTS, commit, machine
from training import pipeline
from training.certification.betting import DELTA
from training.certification.certify import TARGET
from training.certification.rules import certified_rungs
from training.certification.sequences import (
    CandidatePolicy,
    PolicySequence,
    StoppingPolicy,
    cheapest,
    policy_sequences,
    shared,
)
from training.data import dataset
from training.evaluation.spending import Spending
from training.model.fit import families_named
from training.stopping.replay import named
from training.stopping.rules import Stops, fixed
from training.stopping.stage import Within
from training.stopping.traces import Traces, from_frame
from training.trained import Trained, stopping_violations

RESPLITS = 500


@dataclass(frozen=True)
class Row:
    """One family on the test split.

    Attributes:
        policy: what is certified; "" = nothing, so that everybody gets the top rung.
        thinking, probes: mean tokens.
        saved_against_top, saved_against_hull: shares with their 95 % intervals, probes charged.
    """

    family: str
    policy: str
    accuracy: float
    loss: float
    loss_interval: tuple[float, float]
    thinking: float
    probes: float
    saved_against_top: float
    top_interval: tuple[float, float]
    saved_against_hull: float
    hull_interval: tuple[float, float]


def main() -> None:
    """Measure the pocket reasoner and every public set with the answer at every rung."""
    figures: dict[str, Any] = {"machine": machine(), "commit": commit(), "target": TARGET}
    sets = {"Pocket reasoner": pl.read_parquet(OUTCOMES), **public_sets.with_answers()}
    for name, rows in sets.items():
        figures[name] = measured(name, rows)
    path = RESULTS / "stopping.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"\n{figures['machine']}, commit {figures['commit']}: {path}")


def measured(name: str, rows: pl.DataFrame) -> dict[str, Any]:
    """Print the table of a set; returns its rows, its violations, and the rows with shuffled answers."""
    outcomes, traces = dataset.from_frame(rows, soft=True), from_frame(rows)
    families = families_named(["pooled logit"] if len(outcomes) < 2_000 else [])
    trained = pipeline.train(outcomes, candidates=families, traces=traces)
    assert trained.within is not None
    table = list(families_alone(trained, trained.within))
    print(f"\n== {name}: {len(traces):,} traces, loss of at most {TARGET:g}\n{shown(table)}")
    violations = stopping_violations(trained, (TARGET,), RESPLITS)
    for one in violations:
        print(f"violated in {one.violated:.1%} of {one.resplits} re-splits, nothing proved in {one.uncertified:.1%}")
    blind = pipeline.train(outcomes, candidates=families, traces=worthless(traces))
    print(f"answers and log-probabilities shuffled: {len(blind.proofs.stopping)} rules certified at any target")
    return {
        "rows": [asdict(row) for row in table],
        "violations": [one.to_json() for one in violations],
        "worthless": [asdict(one) for one in blind.proofs.stopping],
    }


def families_alone(trained: Trained, within: Within) -> Iterator[Row]:
    """A row for always-top, one for each family at the whole delta, and one for all of them at their shares."""
    test = within.samples["test"].traces
    yield described(test, "always top", "", fixed(test, -1))
    predicted = {name: trained.fitted.predict(part.prompts) for name, part in trained.parts.items()}
    own = [(trained.parts[name], predicted[name]) for name in ("certify", "fit")]
    sequences = [*policy_sequences(own[0], own[1]), *within.sequences()]
    for sequence in sequences:
        proved = replace(sequence, delta=DELTA).proved(TARGET)
        yield described(test, sequence.name, *stops(trained, within, proved))
    before, learned, stopping = shared(sequences[0], sequences[1], sequences[2:])
    yield described(test, "all together", *stops(trained, within, best([before, learned], stopping)))


def best(before: list[PolicySequence], stopping: list[PolicySequence]) -> CandidatePolicy | str:
    """The policy that `fit` would have served: the certified one that spends fewest tokens."""
    return cheapest([*before, *stopping], TARGET)


def stops(trained: Trained, within: Within, proved: CandidatePolicy | str) -> tuple[str, Stops]:
    """The name of a certified policy, and where it stops on the traces of the test split."""
    test = within.samples["test"]
    if isinstance(proved, str):
        return "", fixed(test.traces, -1)
    if isinstance(proved, StoppingPolicy):
        return named(proved.rule, test.traces.ladder), test.stops(proved.rule, within.lookahead)
    certificate = proved.certificate(TARGET)
    prediction = trained.fitted.predict(test.traces.prompts)
    rung = certified_rungs(certificate, prediction)
    thinking = test.traces.thinking_tokens[np.arange(len(rung)), rung]
    name = "learned price" if proved.rung is None else f"rung {test.traces.ladder.rungs[proved.rung].name}"
    return name, Stops(rung, thinking, np.zeros(len(rung)))


def described(traces: Traces, family: str, policy: str, stopped: Stops) -> Row:
    """The figures of a policy on traces."""
    correct = traces.correct[np.arange(len(traces)), stopped.rung]
    spending = Spending(traces.outcomes(), correct, stopped.spent)
    loss, top, hull = spending.loss(), spending.saved_against_top(), spending.saved_against_hull()
    means = float(stopped.thinking.mean()), float(stopped.probes.mean())
    return Row(family, policy, float(correct.mean()), *loss, *means, *top, *hull)


def worthless(traces: Traces) -> Traces:
    """The same thoughts with the answers of other prompts, and log-probabilities that say nothing."""
    shuffled = np.random.default_rng(0).permuted(traces.answers, axis=0)
    flat = np.where(np.isfinite(traces.probe_logprob), -0.1, np.nan)
    return replace(traces, answers=shuffled, probe_logprob=flat, probe_min_logprob=flat, end_logprob=flat)


def shown(rows: list[Row]) -> str:
    """The rows as a table of text."""
    head = f"{'family':<18} {'certified':<34} {'accuracy':>8} {'loss':>7} {'thinking':>9} {'probes':>7}"
    lines = [f"{head} {'saved vs top':>23} {'vs hull':>23}"]
    for row in rows:
        top, hull = (
            f"{value:.1%} ({low:.1%}, {high:.1%})"
            for value, (low, high) in (
                (row.saved_against_top, row.top_interval),
                (row.saved_against_hull, row.hull_interval),
            )
        )
        lines.append(
            f"{row.family:<18} {row.policy or 'nothing':<34} {row.accuracy:>8.3f} {row.loss:>7.3f}"
            f" {row.thinking:>9.1f} {row.probes:>7.1f} {top:>23} {hull:>23}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
