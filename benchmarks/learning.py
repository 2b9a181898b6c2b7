"""`make learning`: from nothing to a certificate, without a file of labels and without stored prompts.

Each run replays recorded answers of the pocket reasoner in a random order of its own, bare and within conversations, as
evidence that a service writes: the answer at the top rung beside those behind cuts of its thought. The trainer looks at
it as it comes in. What it has certified is tried on prompts that were kept aside, whose answers a verifier knows.

Then a family comes in that learning has not seen, or the families that lose most are all that comes: evidence bets on
what the certificate loses there.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
from tqdm import tqdm

from benchmarks import harness
from benchmarks.drift import first_refutation
from benchmarks.harness import OUTCOMES
from router.bundle.features import VERSION
from router.bundle.manifest import Bundle
from router.domain import DEFAULT_MAX_LOSS
from router.learning.evidence import MODEL, Evidence, Inputs
from router.learning.store import EvidenceFile
from training.arrays import Matrix, Rows, Vector
from training.certification.rules import certified_rungs, losses
from training.data import dataset
from training.data.outcomes import Outcomes
from training.data.splits import split_of
from training.learning.bundles import current_in
from training.learning.look import Learning
from training.model import embedding, inference
from training.model.fit import families_named, inputs
from training.model.head_graph import head_of
from training.wrapping.wrap import conversations, joined

ALPHA, SEEDS = DEFAULT_MAX_LOSS, 20
BATCH, MOST = 100, 2_000
"""Pieces of evidence between two looks, and of a run."""

LATER = "number_sorting"
"""The family that comes in later: what it loses at shorter rungs is the most of all."""

SHIFTED = ("ab", "letter_counting")
"""Families that learning has seen, and that are all of the traffic later: of those seen they lose most."""

TAUGHT, ACTING = 0.2, 0.05
"""Shares of the requests that teach before a certificate, and behind it, as the service has them."""

FAMILIES = ("pooled logit", "logistic")
"""Model families that are compared: networks would take ten times as long."""

MISSED = 0.2
"""Share of the true losses that the scripted judge does not see, as its operator has said."""

JUDGES = {"a verifier": "verifier", f"a model that overlooks {MISSED:g} of the losses": MODEL, "nobody": ""}
"""Who compares answers that differ, as evidence names them."""

REGISTRY = "registry"
SHOWN = (500, 1_000, 1_500, 2_000)
"""Pieces of evidence at which savings are shown."""

WAITED = 5_000
"""Pieces of evidence after which no refutation is waited for."""


@dataclass(frozen=True)
class Recorded:
    """Recorded answers, with what evidence says of them.

    Attributes:
        found: inputs [prompts, width].
        same: the answer equals the one at the top [prompts, rungs].
        spent: tokens of the answers behind cuts [prompts].
    """

    outcomes: Outcomes
    found: Inputs
    same: Matrix
    spent: Vector

    def evidence(self, i: int, judge: str, overlooked: bool) -> Evidence:
        """What the request about prompt `i` tells; `overlooked` by its judge is what the other answers lost."""
        correct = self.outcomes.correct[i]
        said = correct.clip(min=correct[-1]) if overlooked else correct
        return Evidence(
            decision_id=str(i),
            at=float(i),
            engine=self.outcomes.model,
            ladder=self.outcomes.ladder,
            prompt=str(i),
            group=self.outcomes.groups[i],
            inputs=self.found[i],
            thinking_tokens=tuple(self.outcomes.thinking_tokens[i].astype(int).tolist()),
            same=tuple(self.same[i].tolist()),
            judged=tuple(said.tolist()) if judge else (None,) * len(correct),
            judge=judge,
            spent_tokens=int(self.spent[i]),
            features=VERSION,
        )


@dataclass(frozen=True)
class Step:
    """A bundle that was promoted.

    Attributes:
        pieces: of evidence so far.
        loss: true mean loss on prompts kept aside.
        tokens, share: of the top rung's thinking tokens that are saved a request.
        learning: tokens that a piece of evidence has cost.
    """

    pieces: int
    loss: float
    tokens: float
    share: float
    learning: float


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        later, shifted: true losses on LATER and on SHIFTED.
        refuted: pieces of evidence of SHIFTED until the certificate is refuted; more than WAITED = it was not.
    """

    steps: list[Step]
    later: float
    shifted: float
    refuted: int

    def saved(self, pieces: int) -> float:
        """Share of the tokens that was saved at so many pieces of evidence."""
        return next((step.share for step in reversed(self.steps) if step.pieces <= pieces), 0.0)

    @property
    def even(self) -> float:
        """Requests after which as many tokens were saved as learning has cost; infinite where that never came."""
        balance, requests = -self.steps[0].pieces * self.steps[0].learning, self.steps[0].pieces / TAUGHT
        for step, end in zip(self.steps, [*(one.pieces for one in self.steps[1:]), np.inf], strict=True):
            gain = (1 - ACTING) * step.tokens - ACTING * step.learning
            needed, there = -balance / gain if gain > 0 else np.inf, (end - step.pieces) / ACTING
            if needed <= there:
                return requests + needed
            balance, requests = balance + there * gain, requests + there
        return float("inf")


def main() -> None:
    """Print and store the figures."""
    rows = []
    for name, judge in JUDGES.items():
        with ProcessPoolExecutor(2) as pool:
            runs = list(tqdm(pool.map(partial(one_run, judge=judge), range(SEEDS)), "runs", SEEDS, disable=None))
        rows.append({"judge": name} | summed(runs))
        print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()))
    harness.written("learning", {"alpha": ALPHA, "judges": rows})


@cache
def read() -> Recorded:
    """Bare prompts and conversations, with their answers at every rung."""
    bare = pl.scan_parquet(OUTCOMES)
    every = joined(bare, conversations(bare)).collect().sort("prompt_id", "rung_order")
    outcomes = dataset.from_frame(every.lazy())
    assert outcomes.thinking_tokens is not None
    place = {prompt: i for i, prompt in enumerate(outcomes.prompts)}
    order = np.argsort([place[prompt] for prompt in dataset.prompts_of(every.unique("prompt_id", maintain_order=True))])
    by_rung = every.group_by("prompt_id", maintain_order=True).agg(
        (pl.col("answer") == pl.col("answer").last()).fill_null(False).alias("same"),
        (pl.col("total_tokens") - pl.col("thinking_tokens")).alias("answered"),
        pl.col("thinking_tokens").alias("thought"),
    )
    same, answered, thought = (np.array(by_rung[name].to_list())[order] for name in ("same", "answered", "thought"))
    same |= thought == thought[:, -1:]
    return Recorded(
        outcomes, inputs(embedding.static(), outcomes.prompts), same, np.where(same, 0, answered).sum(axis=1)
    )


def one_run(seed: int, judge: str) -> Run:
    """What is certified as evidence comes in, and what becomes of it when the traffic changes."""
    recorded = read()
    outcomes = recorded.outcomes
    families = np.array([task.partition("/")[0] for task in outcomes.tasks])
    later, harder = families == LATER, np.isin(families, SHIFTED)
    test = np.array([split_of(group) == "test" for group in outcomes.groups])
    random = np.random.default_rng(seed)
    stream = random.permutation(np.flatnonzero(~test & ~later))[:MOST]
    with tempfile.TemporaryDirectory() as name:
        steps = list(learned(recorded, stream, Path(name), judge, np.flatnonzero(test & ~later)))
        bundle = current_in(Path(name) / REGISTRY)
        if bundle is None:
            return Run([], 0.0, 0.0, WAITED + 1)
        new, shifted = (served(bundle, recorded, np.flatnonzero(test & part))[0] for part in (later, harder))
    refuted = first_refutation(random.choice(shifted, WAITED))
    return Run(steps, float(new.mean()), float(shifted.mean()), refuted)


def learned(recorded: Recorded, stream: Rows, folder: Path, judge: str, kept: Rows) -> Iterator[Step]:
    """Each bundle that is promoted, tried on prompts that were kept aside."""
    families, misses = families_named(FAMILIES), MISSED if judge == MODEL else 0.0
    trainer = Learning(folder, folder / REGISTRY, ALPHA, act=True, judge_misses=misses, candidates=families)
    overlooked = np.random.default_rng(len(stream)).uniform(size=len(stream)) < misses
    version = ""
    with closing(EvidenceFile(folder)) as file:
        for end in range(BATCH, len(stream) + 1, BATCH):
            file.add([recorded.evidence(stream[k], judge, bool(overlooked[k])) for k in range(end - BATCH, end)])
            trainer.look()
            bundle = current_in(folder / REGISTRY)
            if bundle is not None and bundle.version != version:
                version, (lost, spent) = bundle.version, served(bundle, recorded, kept)
                top = recorded.outcomes.thinking_tokens[kept, -1].mean()
                saved, learning = float(top - spent.mean()), float(recorded.spent[stream[:end]].mean())
                yield Step(end, float(lost.mean()), saved, saved / float(top), learning)


def served(bundle: Bundle, recorded: Recorded, rows: Rows) -> tuple[Vector, Vector]:
    """True losses and thinking tokens [rows] under a bundle's certificate."""
    graph = onnxruntime.InferenceSession(head_of(onnx.load_from_string(bundle.model)).SerializeToString())
    prediction = inference.of_inputs(graph, recorded.found[rows], bundle.manifest.far_beyond)
    proof = max((one for one in bundle.manifest.certificates if one.alpha <= ALPHA), key=lambda one: one.alpha)
    chosen, outcomes = certified_rungs(proof, prediction), recorded.outcomes.take(rows)
    return losses(outcomes.correct, chosen), outcomes.thinking_tokens[np.arange(len(rows)), chosen]


def summed(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians over runs, and how many keep what their certificates promise."""
    found = [run for run in runs if run.steps]
    first = [run.steps[0].pieces for run in found]
    return {
        "runs": len(runs),
        "certified": len(found),
        "first_pieces": [min(first), float(np.median(first)), max(first)],
        "first_requests": float(np.median(first)) / TAUGHT,
        "even_requests": float(np.median([run.even for run in found])),
        "worst_loss": max(step.loss for run in found for step in run.steps),
        "within": sum(all(step.loss <= ALPHA for step in run.steps) for run in found),
        "saved": {pieces: float(np.median([run.saved(pieces) for run in runs])) for pieces in SHOWN},
        "later_loss": float(np.median([run.later for run in found])),
        "shifted_loss": float(np.median([run.shifted for run in found])),
        "pieces_until_refuted": float(np.median([run.refuted for run in found])),
    }


if __name__ == "__main__":
    main()
