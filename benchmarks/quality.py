"""`make quality`: measures the classifier and its certificates on outcomes of the pocket reasoner and on public ones.

Prints every table and writes results/quality.json. It tunes nothing: the model family is chosen on the fit split,
thresholds on the certify split, and the test split is read once.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import public_sets
from benchmarks.harness import OUTCOMES, commit, machine
from benchmarks.quality_table import table
from training import pipeline
from training.certification.certify import ALPHAS
from training.data import dataset
from training.data.outcomes import Outcomes
from training.evaluation import comparison
from training.model.embedding import static
from training.model.fit import fit
from training.report.text import describe, re_splits
from training.trained import Trained, full_report, violations

RESULTS = Path("benchmarks/results/quality.json")
SIZES = (250, 500, 1_000, 2_000, 4_000)
LARGE, MILLION = 10_000, 1_000_000


def main() -> None:
    """Run everything, or the measurement named on the command line."""
    if len(sys.argv) > 1:
        print(json.dumps({"fit": fit_seconds, "load": load_seconds}[sys.argv[1]](Path(sys.argv[2]))))
        return
    figures: dict[str, Any] = {"machine": machine(), "commit": commit()}
    figures["pocket"], trained = judged("Pocket reasoner", dataset.read(OUTCOMES))
    figures["label_efficiency"] = comparison.label_efficiency(trained.parts, trained.fitted, SIZES)
    for row in figures["label_efficiency"]:
        print({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()})
    for name, rows in public_sets.converted().items():
        figures[name], _ = judged(name, dataset.from_frame(rows, soft=True))
    print(f"\n{table({name: one for name, one in figures.items() if 'policies' in one})}")
    figures["scale"] = scale()
    print(f"\n{figures['scale']}\n{figures['machine']}, commit {figures['commit']}: {RESULTS}")
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")


def judged(name: str, outcomes: Outcomes) -> tuple[dict[str, Any], Trained]:
    """Print the whole report; returns it without prompt texts and curves."""
    trained = pipeline.with_baselines(pipeline.train(outcomes))
    left_out = comparison.leave_one_family_out(trained.parts, trained.fitted)
    report = full_report(trained, {}, left_out)
    print(f"\n== {name}\n{describe(report)}")
    for row in left_out:
        print({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()})
    for refused, why in trained.proofs.refused.items():
        print(f"not certified: {refused}: {why}")
    report["violations_per_prompt"] = [v.to_json() for v in violations(trained, ALPHAS, per_prompt=True)]
    print(f"\nthe same with a target per prompt\n{re_splits(report['violations_per_prompt'])}")
    report["methods"] = [{k: v for k, v in method.items() if k != "curve"} for method in report["methods"]]
    return {k: v for k, v in report.items() if k not in ("mistakes", "oracle", "hindsight")}, trained


def scale() -> dict[str, Any]:
    """Time a fit of 10k prompts x 6 rungs, and a load and split of a million rows, each in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        large, million = Path(folder, "large.parquet"), Path(folder, "million.parquet")
        _grown(LARGE).write_parquet(large)
        _grown(MILLION // 6 + 1).write_parquet(million)
        return {name: _alone(name, path) for name, path in (("fit", large), ("load", million))}


def fit_seconds(path: Path) -> dict[str, float]:
    """Time and peak memory of training on every prompt of a file; its fit split has that many prompts."""
    started = time.perf_counter()
    fit(dataset.read(path), static())
    return _measured(started)


def load_seconds(path: Path) -> dict[str, float]:
    """Time and peak memory of reading, checking and splitting a file."""
    started = time.perf_counter()
    dataset.splits(dataset.read(path))
    return _measured(started)


def _measured(started: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(time.perf_counter() - started, 1), "peak_megabytes": round(peak)}


def _alone(name: str, path: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.quality", name, str(path)], stdout=subprocess.PIPE, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _grown(prompts: int) -> pl.DataFrame:
    """The pocket outcomes, repeated under other names until the wanted number of prompts is reached."""
    rows, random = pl.read_parquet(OUTCOMES), np.random.default_rng(0)
    per_copy = rows["prompt_id"].n_unique()
    copies = []
    for copy in range(-(-prompts // per_copy)):
        mark = f" ({random.integers(10**9)})"
        named = pl.col("prompt_id", "group") + f"-{copy}"
        copies.append(rows.with_columns(pl.col("prompt") + mark, named))
    grown = pl.concat(copies)
    kept = grown["prompt_id"].unique(maintain_order=True).head(prompts)
    return grown.filter(pl.col("prompt_id").is_in(kept.implode()))


if __name__ == "__main__":
    main()
