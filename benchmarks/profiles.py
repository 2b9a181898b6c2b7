"""`make profiles`: measures quality and speed of the classifier's profiles.

`python -m benchmarks.profiles fit` trains the profiles on the pocket outcomes, stores the bundles in build/profiles,
and evaluates each on the test split, which chooses nothing. `main` only times the bundles that exist: CPU of the
classifier alone, tokenisation included, one prompt of 40 tokens at a time, on one thread.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import harness
from benchmarks.harness import BUNDLE, OUTCOMES, Target
from benchmarks.load import prompt
from router.bundle import features, manifest
from router.domain import DEFAULT_MAX_LOSS, Prompt
from router.scoring.onnx import CUDA, OnnxClassifier
from training import bundle_report, pipeline
from training.model.embedding import Embedding
from training.model.fit import Inputs, inputs

TRAINED = Path("build/profiles")
ALPHA = DEFAULT_MAX_LOSS
ROUNDS, CALLS, WARM_UP = 5, 200, 1_000
"""Prompts per round, and prompts before the first round; as in serving, most words have then been seen."""

TOKENS = 40


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        precision: precision of an encoder.
        gpu: the profile is timed only on a GPU; its quality was measured on a CPU.
    """

    name: str
    bundle: Path
    precision: str = ""
    gpu: bool = False


VECTORS = Row("static vectors alone", TRAINED / "vectors")
SHIPPED = Row("static vectors and hand features", BUNDLE)
INT8 = Row("encoder, 8 bits, CPU", TRAINED / "encoder-int8", "int8")
FP16 = Row("encoder, 16 bits, GPU", TRAINED / "encoder-fp16", "fp16", gpu=True)
ROWS = (VECTORS, SHIPPED, INT8, FP16)


def main() -> list[Target]:
    """Print and store the table; it has no targets."""
    quality = kept("quality")
    speed = {row.name: costs(row) for row in ROWS if row.bundle.exists()}
    print(f"{'':34s}{'saved against the hull':>24s}{'AUROC':>8s}{'log-loss':>10s}", end="")
    print(f"{'CPU us a decision':>28s}{'p50':>8s}{'p99 ms':>8s}")
    for row in ROWS:
        print(f"{row.name:34s}{worth(quality.get(row.name)):42s}{cost(row, speed):>28s}")
    if absent := [row.name for row in ROWS if not row.bundle.exists()]:
        print(f"not there: {'; '.join(absent)}. `make profiles` trains them (half an hour)")
    measured = {name: found or "not measured: no GPU" for name, found in speed.items()}
    harness.written("profiles", {"quality": quality, "speed": kept("speed") | measured})
    return []


def fit(*names: str) -> None:
    """Train and evaluate the named profiles, or all; each is stored at once, because an encoder takes ten minutes."""
    for row in ROWS:
        if not names or row.bundle.name in names:
            found = judged(report(row))
            print(f"{row.name:34s}{worth(found)}", flush=True)
            harness.written("profiles", {"quality": kept("quality") | {row.name: found}, "speed": kept("speed")})


def report(row: Row) -> dict[str, Any]:
    """Evaluate a profile on the test split; trains it first, unless it ships with the package."""
    if row is SHIPPED:
        return bundle_report.report(BUNDLE, OUTCOMES)
    if row is VECTORS:
        return pipeline.run(OUTCOMES, row.bundle, "static", False, vectors_alone)
    return pipeline.run(OUTCOMES, row.bundle, "encoder", False, precision=row.precision)


def kept(figures: str) -> dict[str, Any]:
    """Stored figures of each profile by name: its "quality" or its "speed"."""
    path = harness.RESULTS / "profiles.json"
    found: dict[str, Any] = json.loads(path.read_text()).get(figures, {}) if path.exists() else {}
    return found


def judged(report: dict[str, Any]) -> dict[str, Any]:
    """Certified saving against the hull, with interval and loss; AUROC and log-loss as means over rungs."""
    policy = next(p for p in report["policies"] if p["alpha"] == ALPHA)
    hull = [round(share, 4) for share in (policy["saved_against_hull"], *policy["hull_interval"])]
    means = {name: round(float(np.mean([r[name] for r in report["rungs"]])), 4) for name in ("auroc", "log_loss")}
    return {"hull": hull, "loss": round(policy["loss"], 4), **means, "commit": harness.commit()}


def vectors_alone(embedding: Embedding, prompts: list[Prompt]) -> Inputs:
    """Inputs [prompts, width] without information in the hand features' columns, which fitting then drops as rare."""
    given = inputs(embedding, prompts)
    given[:, : features.WIDTH] = 0
    return given


def costs(row: Row) -> dict[str, Any] | None:
    """CPU microseconds and latency of a decision over the rounds; None if the profile needs a GPU and there is none."""
    classifier = OnnxClassifier(manifest.load(row.bundle), "auto" if row.gpu else "cpu")
    if row.gpu and classifier.provider != CUDA:
        return None
    timed(classifier, range(WARM_UP))
    starts = range(WARM_UP, WARM_UP + ROUNDS * CALLS, CALLS)
    rounds = [timed(classifier, range(at, at + CALLS)) for at in tqdm(starts, row.name, leave=False)]
    latencies = sorted(ms for _, each in rounds for ms in each)
    p50, p99 = (round(latencies[int(share * len(latencies))], 3) for share in (0.5, 0.99))
    return {"us": harness.spread([us for us, _ in rounds]), "p50_ms": p50, "p99_ms": p99}


def timed(classifier: OnnxClassifier, numbers: Sequence[int]) -> tuple[float, list[float]]:
    """CPU microseconds per prompt, one at a time, and milliseconds of each; each number gives another prompt."""
    prompts = [Prompt.of(prompt(TOKENS, number)) for number in numbers]
    latencies = []
    began = time.process_time()
    for one in prompts:
        asked = time.perf_counter()
        classifier.scored([one])
        latencies.append((time.perf_counter() - asked) * 1000)
    return (time.process_time() - began) / len(prompts) * 1e6, latencies


def worth(found: dict[str, Any] | None) -> str:
    """Text of the quality columns."""
    if found is None:
        return f"{'not known':>24s}"
    saved = "{:.1%} ({:.1%}, {:.1%})".format(*found["hull"])
    return f"{saved:>24s}{found['auroc']:8.3f}{found['log_loss']:10.3f}"


def cost(row: Row, speed: dict[str, dict[str, Any] | None]) -> str:
    """Text of the speed columns."""
    if row.name not in speed:
        return "not there"
    if (found := speed[row.name]) is None:
        return "not measured: no GPU"
    us = "{median:,.0f} ({least:,.0f} to {most:,.0f})".format(**found["us"])
    return f"{us:>28s}{found['p50_ms']:8.2f}{found['p99_ms']:8.2f}"


if __name__ == "__main__":
    fit(*sys.argv[2:]) if sys.argv[1:2] == ["fit"] else main()
