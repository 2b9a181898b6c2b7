"""reasoning-gym: generators of questions and the verifiers that score answers."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

for _absent in ("cellpylib", "pycosat", "zss"):
    # reasoning-gym imports these for families that are not used here; they ship no wheels, so they are not installed
    sys.modules.setdefault(_absent, ModuleType(_absent))

import reasoning_gym  # noqa: E402

RIGHT = 0.999
"""Score from which an answer counts as right; verifiers give partial credit."""


def generate(name: str, size: int, seed: int, **settings: Any) -> Sequence[Mapping[str, Any]]:
    """Entries ("question", "answer", "metadata") of a data set, generated on access.

    Raises:
        ValueError: no data set has this name.
    """
    made: Sequence[Mapping[str, Any]] = reasoning_gym.create_dataset(name, size=size, seed=seed, **settings)
    return made


def is_right(name: str, answer: str, entry: Mapping[str, Any]) -> bool:
    """True if the data set's own verifier accepts an answer. Raises ValueError if no data set has this name."""
    return _verifier(name)(answer, entry) >= RIGHT


@cache
def _verifier(name: str) -> Callable[[str, Mapping[str, Any]], float]:
    """The data set's scoring function. Making one may read a long list of words, so each is made once."""
    verifier: Callable[[str, Mapping[str, Any]], float] = reasoning_gym.get_score_answer_fn(name)
    return verifier
