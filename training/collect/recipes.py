"""A recipe from what a person asks for."""

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

from router.backends import canary
from router.backends.connect import Connection, connect
from router.backends.http import Timeouts
from router.backends.two_phase import Markers
from router.domain import DEFAULT_ANSWER_TOKENS, BudgetLadder, ReasoningBudget, Sampling
from training.collect.units import Pocket, Recipe
from training.data.schema import DatasetError
from training.pocket.tasks import LADDER

POCKET = Path("router/models/pocket")
POCKET_ANSWER_TOKENS = 64
UNLIMITED = "unlimited"
OPTIONS = (
    "backend", "url", "model", "ladder", "samples", "temperature", "max_answer_tokens", "timeout", "concurrency",
    "seed", "think_start", "think_end", "unenforced",
)  # fmt: skip


def from_options(
    backend: str,
    url: str | None,
    model: str | None,
    ladder: str | None,
    samples: int,
    temperature: float,
    max_answer_tokens: int | None,
    timeout: float,
    concurrency: int,
    seed: int,
    think_start: str,
    think_end: str,
    unenforced: bool,
) -> Recipe:
    """The recipe; an engine is asked who it is, and must hold its budgets.

    Raises:
        DatasetError: wishes contradict each other.
        ArtifactError: there is no pocket reasoner.
        BackendError: the engine does not answer, or holds no budget.
    """
    if samples > 1 and temperature == 0:
        raise DatasetError("--samples above 1 needs a --temperature: greedy answers are all the same")
    longest = max_answer_tokens or (POCKET_ANSWER_TOKENS if url is None else DEFAULT_ANSWER_TOKENS)
    sampling = Sampling(temperature, longest, seed if temperature else None)
    if url is None:
        return _pocket(Path(model or POCKET), ladder, samples, sampling, concurrency)
    if model is None or ladder is None:
        raise DatasetError("--url needs --model, the name that the engine serves, and --ladder, from cheap to dear")
    connection = Connection(
        backend,
        url,
        model,
        unenforced=unenforced,
        markers=Markers(think_start, think_end),
        timeouts=Timeouts(first=timeout, idle=timeout, total=timeout),
        connections=concurrency,
    )
    rungs = parse_ladder(ladder, efforts=backend == "openai_effort")
    return Recipe(connection, asyncio.run(_fingerprint(connection)), rungs, samples, sampling, concurrency)


def _pocket(directory: Path, ladder: str | None, samples: int, sampling: Sampling, concurrency: int) -> Recipe:
    from router.backends.pocket import PocketModel

    rungs = LADDER if ladder is None else parse_ladder(ladder)
    return Recipe(Pocket(directory), PocketModel.load(directory).fingerprint, rungs, samples, sampling, concurrency)


async def _fingerprint(connection: Connection) -> str:
    """What the router calls this engine when it serves it: certificates count for that alone."""
    async with AsyncExitStack() as stack:
        return await connect(connection, canary.holds_budgets, stack).prove()


def parse_ladder(ladder: str, efforts: bool = False) -> BudgetLadder:
    """ "0,512,unlimited" -> rungs; with `efforts` also names without a number. Raises DatasetError.

    >>> [rung.tokens for rung in parse_ladder("0,512,unlimited").rungs]
    [0, 512, None]
    """
    names = [name.strip() for name in ladder.split(",")]
    for name in names:
        if not (name.isdecimal() or name == UNLIMITED or (efforts and name)):
            raise DatasetError(f"--ladder: {name!r} is neither a number of tokens nor {UNLIMITED!r}")
    rungs = tuple(ReasoningBudget(name, int(name) if name.isdecimal() else None) for name in names)
    caps = [float("inf") if rung.tokens is None else rung.tokens for rung in rungs]
    if len(rungs) < 2 or len(set(names)) < len(names) or any(a > b for a, b in pairwise(caps)):
        raise DatasetError("--ladder: two rungs or more, from cheap to dear")
    return BudgetLadder(rungs)
