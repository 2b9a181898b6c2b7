"""`make learning-poisoned`: one tenant teaches falsely, and others are served by what was learned.

As `make learning`. Four pieces of evidence in five are of one tenant. Where a verifier judges, it floods the service
with the family of prompts that needs the least thought; where nobody does, it sends what all send and reports every
answer as wrong, so that nothing could be lost. What was certified is tried on prompts of the others.
"""

import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks import harness
from benchmarks.learning import ALPHA, REGISTRY, Recorded, read, served
from router.learning.evidence import Evidence
from router.learning.store import EvidenceFile
from training.arrays import Rows
from training.data.splits import split_of
from training.learning.bundles import current_in
from training.learning.look import Learning
from training.model.fit import families_named

SEEDS, PIECES, LOOK = 10, 1_600, 200
FALSE, HONEST = "false", "honest"
FLOOD = 0.8
"""Share of the pieces that are of the tenant that teaches falsely."""

SHARES = (1.0, 0.5)
"""LEARN_TENANT_SHARE: without a bound, and as it is by default."""


def main() -> None:
    """Print and store the figures."""
    rows = []
    for attack in ATTACKS:
        for share in SHARES:
            with ProcessPoolExecutor(2) as pool:
                run = partial(worst_loss, attack=attack, share=share)
                found = list(tqdm(pool.map(run, range(SEEDS)), attack, SEEDS, disable=None))
            lost = [loss for loss in found if loss is not None]
            rows.append({"attack": attack, "share": share, "runs": SEEDS, "certified": len(lost), "losses": lost})
            print(f"{attack}, {share:g}: {len(lost)} certified, loss of others {np.mean(lost or [0]):.3f}"
                  f" ({min(lost, default=0):.3f} to {max(lost, default=0):.3f})")  # fmt: skip
    harness.written("learning_poisoned", {"alpha": ALPHA, "flood": FLOOD, "pieces": PIECES, "attacks": rows})


def worst_loss(seed: int, attack: str, share: float) -> float | None:
    """The largest true loss of the others under any bundle that was promoted; None where none was."""
    recorded, random, found = read(), np.random.default_rng(seed), list[float]()
    outcomes = recorded.outcomes
    test = np.array([split_of(group) == "test" for group in outcomes.groups])
    own, kept, judge = np.flatnonzero(~test), np.flatnonzero(test), JUDGES[attack]
    with tempfile.TemporaryDirectory() as name, closing(EvidenceFile(Path(name))) as file:
        folder = Path(name)
        families = families_named(["pooled logit"])
        trainer = Learning(folder, folder / REGISTRY, ALPHA, act=True, tenant_share=share, candidates=families)
        for start in range(0, PIECES, LOOK):
            for number, false in enumerate(random.random(LOOK) < FLOOD, start):
                said = ATTACKS[attack](recorded, random) if false else honest(recorded, own, random, judge)
                file.add([named(said, false, number)])
            trainer.look()
            if (bundle := current_in(folder / REGISTRY)) is not None:
                found.append(float(served(bundle, recorded, kept)[0].mean()))
    return max(found, default=None)


def named(one: Evidence, false: bool, number: int) -> Evidence:
    """The piece as one of its own group, and of its tenant."""
    name = f"{number}"
    return replace(one, decision_id=name, prompt=name, group=name, tenant=FALSE if false else HONEST)


def honest(recorded: Recorded, rows: Rows, random: np.random.Generator, judge: str) -> Evidence:
    """What any request tells."""
    return recorded.evidence(int(random.choice(rows)), judge, False)


def flood(recorded: Recorded, random: np.random.Generator) -> Evidence:
    """A prompt of the family that loses least at the shortest rung."""
    tasks = np.array([task.partition("/")[0] for task in recorded.outcomes.tasks])
    lost = recorded.outcomes.correct[:, -1] - recorded.outcomes.correct[:, 0]
    easiest = min(set(tasks), key=lambda task: float(lost[tasks == task].mean()))
    return honest(recorded, np.flatnonzero(tasks == easiest), random, JUDGES["flood"])


def reports(recorded: Recorded, random: np.random.Generator) -> Evidence:
    """A prompt of any family, whose answer is said to be wrong."""
    every = np.arange(len(recorded.outcomes))
    return replace(honest(recorded, every, random, JUDGES["false reports"]), reported=0.0)


ATTACKS: dict[str, Callable[[Recorded, np.random.Generator], Evidence]] = {"flood": flood, "false reports": reports}
JUDGES = {"flood": "verifier", "false reports": ""}
"""Who judges where the attack is made: no report changes what a verifier found."""

if __name__ == "__main__":
    main()
