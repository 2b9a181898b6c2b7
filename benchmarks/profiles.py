"""What the profiles of the classifier are worth, and what they cost: quality next to speed.

`make profiles` trains them on the pocket outcomes and judges them on the test split; `make bench` measures
only what a decision of those that are there costs: CPU of one prompt of 40 tokens at a time, one thread.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tqdm import tqdm

from benchmarks import harness
from benchmarks.harness import BUNDLE, OUTCOMES, Target
from benchmarks.load import prompt
from router import artifact, features
from router.adapters.classifier import CUDA, OnnxClassifier
from router.domain import Prompt
from training import dataset, pipeline
from training.embedding import Embedding
from training.fit import Inputs, inputs

QUALITY = harness.RESULTS / "profiles.json"
TRAINED = Path("build/profiles")
ALPHA = 0.02
ROUNDS, CALLS = 5, 200
BUNDLES = {"static vectors and hand features": BUNDLE, "encoder": TRAINED / "encoder"}
"""What is timed on this machine's CPU."""


def main() -> list[Target]:
    """The table, of what is there."""
    told = json.loads(QUALITY.read_text()) if QUALITY.exists() else {"profiles": {}}
    speed = {name: harness.spread(costs(folder)) for name, folder in BUNDLES.items() if folder.exists()}
    print(f"{'':34s}{'saved against hull':>26s}{'AUROC':>8s}{'us a decision':>28s}")
    for name in {**told["profiles"], **speed}:
        row = told["profiles"].get(name, {})
        saved = "{:.1%} ({:.1%}, {:.1%})".format(*row["hull"]) if row else "make profiles"
        us = "{median} ({least} to {most})".format(**speed[name]) if name in speed else "not measured"
        print(f"{name:34s}{saved:>26s}{row.get('auroc', float('nan')):8.3f}{us:>28s}")
    gpu = CUDA in onnxruntime.get_available_providers()
    print(f"encoder in half precision on a GPU: {'see make hot-path' if gpu else 'not measured, none is here'}")
    harness.written("profiles", {"profiles": told["profiles"], "us": speed})
    return []


def costs(folder: Path) -> list[float]:
    """CPU microseconds per decision, a median of each round, prompts that are not remembered."""
    classifier = OnnxClassifier(artifact.load(folder))
    rounds = []
    for number in tqdm(range(ROUNDS), folder.name, leave=False):
        prompts = [Prompt.of(prompt(40, number * CALLS + i)) for i in range(CALLS)]
        began = time.process_time()
        for one in prompts:
            classifier.scored([one])
        rounds.append((time.process_time() - began) / CALLS * 1e6)
    return rounds


def vectors_alone(embedding: Embedding, prompts: list[str]) -> Inputs:
    """Inputs without what the hand features say."""
    given = inputs(embedding, prompts)
    given[:, : features.WIDTH] = 0
    return given


def fit() -> None:
    """Train and judge each profile; the test split is read once."""
    outcomes = dataset.read(OUTCOMES)
    told = {
        "static vectors": judged(pipeline.train(outcomes, "static", vectors_alone).report.to_json()),
        "static vectors and hand features": judged(pipeline.train(outcomes).report.to_json()),
        "encoder": judged(pipeline.run(OUTCOMES, TRAINED / "encoder", "encoder", compare=False)),
    }
    print(json.dumps(told, indent=1))
    harness.written("profiles", {"profiles": told})


def judged(report: dict[str, Any]) -> dict[str, Any]:
    """Of the certified policy: saving against the hull with its interval; AUROC and log-loss, means over rungs."""
    policy = next(p for p in report["policies"] if p["alpha"] == ALPHA)
    hull = [policy["saved_against_hull"], *policy["hull_interval"]]
    means = {name: float(np.mean([rung[name] for rung in report["rungs"]])) for name in ("auroc", "log_loss")}
    return {"hull": [round(n, 4) for n in hull], **{name: round(mean, 4) for name, mean in means.items()}}


if __name__ == "__main__":
    fit() if sys.argv[1:] == ["fit"] else main()
