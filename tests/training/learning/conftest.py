"""A learning folder from nothing to a bundle that serves, learned once."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest

from router.learning.status import Status
from router.learning.store import EvidenceFile
from tests.support.lessons import lessons
from tests.support.once import made_once
from tests.support.synthetic import few_steps
from training.learning.look import Learning
from training.model.fit import families_named

PROMPTS, ALPHA = 420, 0.02
AMOUNTS = (150, 201, PROMPTS)
"""Pieces of evidence at each look."""

STATUSES = "statuses"


def learning(folder: Path, **settings: object) -> Learning:
    """A trainer that fits in a second."""
    families = families_named(["pooled logit"])
    return Learning(folder, folder / "registry", ALPHA, candidates=families, **settings)  # type: ignore[arg-type]


def taught(folder: Path, start: int, end: int, **lesson: object) -> None:
    """Write evidence of some recorded prompts."""
    with_ends = EvidenceFile(folder)
    with_ends.add(list(lessons(range(start, end), PROMPTS, **lesson)))  # type: ignore[arg-type]
    with_ends.close()


@dataclass(frozen=True)
class Learned:
    """A learning folder, and what its trainer said after each of AMOUNTS: observing, and at last in `act`."""

    folder: Path
    statuses: list[Status]


def learn(folder: Path) -> None:
    statuses, start = [], 0
    with few_steps():
        for end in AMOUNTS:
            taught(folder, start, end)
            statuses.append(learning(folder).look())
            start = end
        statuses.append(learning(folder, act=True).look())
    (folder / STATUSES).write_bytes(pickle.dumps(statuses))


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """Do not change it: copy the folder."""
    folder = made_once(tmp_path_factory, "learned", learn)
    return Learned(folder, pickle.loads((folder / STATUSES).read_bytes()))
