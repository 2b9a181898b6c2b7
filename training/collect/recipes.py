"""A recipe from what a person asks for."""

from itertools import pairwise
from pathlib import Path

from router.domain import DEFAULT_ANSWER_TOKENS, BudgetLadder, ReasoningBudget, Sampling
from training.collect.units import Engine, Pocket, Recipe
from training.pocket.tasks import LADDER
from training.records import DatasetError

POCKET = Path("router/models/pocket")
POCKET_ANSWER_TOKENS = 64
UNLIMITED = "unlimited"
OPTIONS = ("url", "model", "ladder", "samples", "temperature", "max_answer_tokens", "timeout", "concurrency", "seed")


def of(
    url: str | None,
    model: str | None,
    ladder: str | None,
    samples: int,
    temperature: float,
    max_answer_tokens: int | None,
    timeout: float,
    concurrency: int,
    seed: int,
) -> Recipe:
    """The recipe. Raises DatasetError where wishes contradict each other, ArtifactError without a pocket reasoner."""
    if url is not None and model is None:
        raise DatasetError("--url needs --model, the name that the engine serves it under")
    if url is not None and ladder is None:
        raise DatasetError("--url needs --ladder, thinking tokens from cheap to dear")
    if samples > 1 and temperature == 0:
        raise DatasetError("--samples above 1 needs a --temperature: greedy answers are all the same")
    longest = max_answer_tokens or (POCKET_ANSWER_TOKENS if url is None else DEFAULT_ANSWER_TOKENS)
    sampling = Sampling(temperature, longest, seed if temperature else None)
    rungs = LADDER if ladder is None else parse(ladder)
    if url is not None and model is not None:
        return Recipe(Engine(url, model, timeout), model, rungs, samples, sampling, concurrency)
    from router.adapters.backends.pocket import PocketModel

    directory = Path(model or POCKET)
    return Recipe(Pocket(directory), PocketModel.load(directory).fingerprint, rungs, samples, sampling, concurrency)


def parse(ladder: str) -> BudgetLadder:
    """ "0,512,unlimited" -> rungs. Raises DatasetError.

    >>> [rung.tokens for rung in parse("0,512,unlimited").rungs]
    [0, 512, None]
    """
    names = [name.strip() for name in ladder.split(",")]
    for name in names:
        if not (name.isdecimal() or name == UNLIMITED):
            raise DatasetError(f"--ladder: {name!r} is neither a number of tokens nor {UNLIMITED!r}")
    caps = [float("inf") if name == UNLIMITED else int(name) for name in names]
    if len(caps) < 2 or any(a >= b for a, b in pairwise(caps)):
        raise DatasetError("--ladder: two rungs or more, from cheap to dear")
    return BudgetLadder(tuple(ReasoningBudget(name, None if name == UNLIMITED else int(name)) for name in names))
