"""`make drift`: measures how soon the audit finds a broken certificate, and how often it alarms falsely.

Traffic consists of prompts that the shipped bundle has not seen and whose outcome is recorded at every rung; the losses
are those of the certified policy. Drift is another mix of the same families; textbook loss distributions stand beside
it. Likewise for what was learned while serving, on which evidence bets that comes after it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import BUNDLE, OUTCOMES, commit, machine
from router.bundle import manifest
from router.domain import DEFAULT_MAX_LOSS
from router.outcomes.e_process import DELTA, EProcess
from router.settings import load
from training.certification.rules import certified_rungs, losses
from training.data import dataset
from training.learning.refuting import entries, log_wealth
from training.model import inference

RESULTS = Path("benchmarks/results/drift.json")
ALPHA, TWICE = DEFAULT_MAX_LOSS, 2 * DEFAULT_MAX_LOSS
QUIET_RUNS, QUIET_LABELS = 20, 1_000
RUNS, MOST, SOON = 500, 5_000, 300
TRUE, LEARNED_RUNS, PIECES = (ALPHA, 0.015, 0.01), 400, 5_000
GOOD, JUMPS = (0, 500, 2_000, 10_000), (0.05, 0.1, 0.2)
"""Pieces of evidence that lose half of the target before the loss jumps, and where to."""

HARDER = ("number_sorting", "letter_counting", "ab")

Vector = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Vector]


def main() -> None:
    """Measure all kinds of traffic; print and store the figures."""
    outcomes = dataset.splits(dataset.read(OUTCOMES))["test"]
    bundle = manifest.load(BUNDLE)
    certificate = next(c for c in bundle.manifest.certificates if c.alpha == ALPHA)
    predicted = inference.predict(bundle, outcomes.prompts)
    lost = losses(outcomes.correct, certified_rungs(certificate, predicted))
    hard = lost[[task.partition("/")[0] in HARDER for task in outcomes.tasks]]
    rows = [
        quiet("no drift", drawn(lost), float(lost.mean())),
        found(f"only {', '.join(HARDER)}", drawn(hard), float(hard.mean())),
        found("a mix of both that loses 4 %", mixed(lost, hard, TWICE), TWICE),
        found("wrong once in 25, never better", textbook(TWICE, 0.0), TWICE),
        found("wrong once in 20, better once in 100", textbook(0.05, 0.01), TWICE),
    ]
    for row in rows:
        print(
            "  ".join(
                f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
            )
        )
    learned = [*map(kept, TRUE), *(refuted(good, rate) for good in GOOD for rate in JUMPS)]
    for row in learned:
        print("  ".join(f"{name} {value:g}" for name, value in row.items()))
    result: dict[str, Any] = {"machine": machine(), "commit": commit(), "alpha": ALPHA, "delta": DELTA, "traffic": rows}
    result["learned"] = learned
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def quiet(name: str, draw: Draw, true_loss: float) -> dict[str, Any]:
    """Number of false alarms without drift."""
    random = np.random.default_rng(0)
    alarms = sum(first_alarm(draw(random, QUIET_LABELS)) is not None for _ in range(QUIET_RUNS))
    return {"traffic": name, "true_loss": true_loss, "runs": QUIET_RUNS, "labels": QUIET_LABELS, "alarms": alarms}


def found(name: str, draw: Draw, true_loss: float) -> dict[str, Any]:
    """Number of labels until the alarm."""
    random = np.random.default_rng(0)
    firsts = np.array([first_alarm(draw(random, MOST)) or MOST + 1 for _ in range(RUNS)])
    low, median, high = (float(np.quantile(firsts, q)) for q in (0.1, 0.5, 0.9))
    return {
        "traffic": name, "true_loss": true_loss, "runs": RUNS, "median_labels": median, "p10": low, "p90": high,
        f"within_{SOON}": float((firsts <= SOON).mean()), "never": float((firsts > MOST).mean()),
    }  # fmt: skip


def first_alarm(values: Vector) -> int | None:
    """Position of the label that raises the alarm."""
    process = EProcess(ALPHA)
    for number, loss in enumerate(values.tolist(), 1):
        process.bet(loss)
        if process.alarmed:
            return number
    return None


def kept(rate: float) -> dict[str, float]:
    """Share of streams at a true loss of `rate` in which what was learned is refuted."""
    random = np.random.default_rng(0)
    alarms = [first_refutation(np.where(random.random(PIECES) < rate, 1.0, 0.0)) <= PIECES for _ in range(LEARNED_RUNS)]
    return {"true_loss": rate, "runs": LEARNED_RUNS, "pieces": PIECES, "refuted": float(np.mean(alarms))}


def refuted(good: int, rate: float) -> dict[str, float]:
    """Pieces of evidence and requests from a jump of the true loss until what was learned is refuted."""
    random, share = np.random.default_rng(0), load(learn="act").taught
    firsts: list[int] = []
    while len(firsts) < LEARNED_RUNS:
        losses = 1.0 * np.concatenate([random.random(good) < ALPHA / 2, random.random(PIECES) < rate])
        if (first := first_refutation(losses)) > good:
            firsts.append(first - good)
    low, median, high = (float(np.quantile(firsts, q)) for q in (0.1, 0.5, 0.9))
    return {
        "good": good,
        "jumps_to": rate,
        "pieces": median,
        "p10": low,
        "p90": high,
        "requests": median / share,
    }


def first_refutation(losses: Vector) -> int:
    """The piece of evidence that refutes a certificate; one beyond all where none does."""
    wealth = log_wealth(losses[:, None], np.array([ALPHA]), entries(np.arange(1, len(losses) + 1), 0))
    return int(np.argmax(np.append(wealth >= -np.log(DELTA), True))) + 1


def drawn(values: Vector) -> Draw:
    return lambda random, n: random.choice(values, n)


def mixed(one: Vector, other: Vector, wanted: float) -> Draw:
    """Draws from both sets so that their mean is the wanted one."""
    share = (wanted - one.mean()) / (other.mean() - one.mean())
    return lambda random, n: np.where(random.uniform(size=n) < share, random.choice(other, n), random.choice(one, n))


def textbook(worse: float, better: float) -> Draw:
    return lambda random, n: random.choice([1.0, -1.0, 0.0], n, p=[worse, better, 1 - worse - better])


if __name__ == "__main__":
    main()
