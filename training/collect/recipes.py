"""A recipe from the options of `budget-train collect`."""

import asyncio
import re
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import router
from router.backends import canary
from router.backends.connect import HOSTED, Connection, connect, fingerprint
from router.backends.detection import identified, window
from router.backends.http import Timeouts
from router.backends.markers import Markers
from router.bundle.manifest import is_fingerprint
from router.domain import DEFAULT_ANSWER_TOKENS, BudgetLadder, ReasoningBudget, Sampling
from training.collect import nested as nesting
from training.collect.units import Pocket, Recipe
from training.data.schema import DatasetError
from training.pocket.tasks import LADDER
from training.progress import say

POCKET = Path(router.__path__[0]) / "models" / "pocket"
POCKET_ANSWER_TOKENS = 64
TEMPLATE = re.compile("[0-9a-f]{8}")
UNLIMITED = "unlimited"
SHORTEST = 32
"""Tokens of the shortest top rung that is worth a ladder."""

OPTIONS = (
    "backend", "url", "model", "ladder", "samples", "temperature", "max_answer_tokens", "timeout", "concurrency",
    "seed", "think_start", "think_end", "closing_cue", "unenforced", "backend_key", "nested", "enforcement",
)  # fmt: skip


def from_options(
    backend: str | None,
    url: str | None,
    model: str | None,
    ladder: str | None,
    samples: int,
    temperature: float | None,
    max_answer_tokens: int | None,
    timeout: float,
    concurrency: int,
    seed: int,
    think_start: str | None,
    think_end: str | None,
    closing_cue: str | None,
    unenforced: bool,
    backend_key: str = "",
    nested: bool | None = None,
    enforcement: str = "auto",
) -> Recipe:
    """The recipe for a set of options. An engine is asked for its identity and must hold its budgets.

    Args:
        url: of an engine, whose `backend` and `model` must then be given; None for the pocket reasoner.
        temperature: None = the engine's own, as for a request that names none.
        timeout: seconds that an engine may take for one answer.
        closing_cue: what ends a thought that is cut; "" = nothing, None = the engine's own.
        unenforced: accept an engine that was seen to hold no budget.
        enforcement: how the service will hold budgets: "auto" (native, else two phases), "native" or "two_phase".
        nested: cut one thought at every rung; None = where that gives the answers of serving.

    Raises:
        DatasetError: the options contradict each other, a rung exceeds the engine's window, or thoughts cannot be cut.
        ArtifactError: the pocket reasoner cannot be loaded.
        BackendError: the engine does not answer, or holds no budget.
    """
    greedy = temperature == 0 or (temperature is None and url is None)
    if samples > 1 and greedy:
        raise DatasetError("--samples above 1 needs a --temperature: greedy answers are all equal")
    # Greedy answers do not depend on a seed, so two runs that share a journal need not share one. Hosted models may
    # refuse one.
    drawn_by = None if greedy or (backend == HOSTED and temperature is None) else seed
    longest = max_answer_tokens or (POCKET_ANSWER_TOKENS if url is None else DEFAULT_ANSWER_TOKENS)
    sampling = Sampling(temperature, longest, drawn_by)
    if url is None:
        return _pocket(Path(model or POCKET), ladder, samples, sampling, concurrency, nested)
    if ladder is None:
        raise DatasetError("--url needs --ladder, cheapest rung first")
    markers = Markers(think_start or "", think_end or "", closing_cue)
    assert backend is not None
    assert model is not None
    connection = _connection_of(
        backend, url, model, backend_key, unenforced, markers, timeout, concurrency, enforcement
    )
    rungs = parse_ladder(ladder, efforts=backend == HOSTED)
    require_room(rungs, longest, asyncio.run(window(connection)))
    model_column, obstacle = asyncio.run(_proved(connection, rungs))
    cut = _decided(nested, obstacle)
    return Recipe(connection, model_column, rungs, samples, sampling, concurrency, nested=cut)


async def _proved(connection: Connection, ladder: BudgetLadder) -> tuple[str, str]:
    """The name by which the router knows this engine in serving, and why its thoughts cannot be cut; "" = they can.

    Certificates hold for that name only.
    """
    async with AsyncExitStack() as stack:
        backend = connect(connection, canary.holds_budgets, stack)
        name = await backend.prove()
        return name, nesting.obstacle(backend, ladder)


def _decided(nested: bool | None, obstacle: str) -> bool:
    """Whether thoughts are cut. Raises DatasetError where they cannot be and were to be."""
    if nested and obstacle:
        raise DatasetError(f"--nested: {obstacle}")
    if nested is None and obstacle:
        say(f"collect: each rung is asked anew: {obstacle}")
    return nested is not False and not obstacle


def require_room(ladder: BudgetLadder, longest: int, room: int | None) -> None:
    """Raise DatasetError if a rung and the longest answer leave no token of the engine's window to the prompt.

    Args:
        longest: tokens of the longest answer.
        room: tokens of prompt, thought and answer together; None = unknown.
    """
    for rung in ladder.rungs:
        if room is not None and rung.tokens is not None and rung.tokens + longest >= room:
            raise DatasetError(
                f"--ladder: rung {rung.name} and an answer of up to {longest} tokens exceed the engine's window of "
                f"{room} tokens; {_fitting(room - longest)}"
            )


def _fitting(left: int) -> str:
    """What to ask for instead, where an answer leaves so many tokens to prompt and thought: about half for each."""
    shorter = "name a smaller --max-answer-tokens"
    if left < 2 * SHORTEST:
        return shorter
    top = 1 << (left.bit_length() - 2)
    return f"name lower rungs, such as {','.join(map(str, (0, top // 16, top // 4, top)))}, or {shorter[5:]}"


def named(url: str, kind: str, model: str, key: str = "") -> tuple[str, str]:
    """Kind and model of the engine at `url`, which is asked for what is left open (""). Raises as `identified`."""
    if kind and model:
        return kind, model
    found = asyncio.run(identified(Connection(kind, url, model, key)))
    return found.kind, found.model


def fingerprint_at(url: str, kind: str, model: str, key: str = "") -> str:
    """The fingerprint of the engine at `url`, which must hold its budgets.

    Args:
        kind: a name in DIALECTS; "" = as the engine says.
        model: the model's name in the engine, or a fingerprint that holds it.
        key: bearer token; "" = none.

    Raises:
        BackendError: no such engine answers there, or it holds no budget.
        SettingsError: the URL is wrong.
    """
    return asyncio.run(_fingerprint_at(Connection(kind, url, _name(model), key)))


async def _fingerprint_at(connection: Connection) -> str:
    return await fingerprint(await identified(connection), canary.holds_budgets)


def _name(model: str) -> str:
    """The model's name in VERSION/NAME/TEMPLATE/ENFORCEMENT, of which hosted models have no template."""
    if not is_fingerprint(model):
        return model
    _, *name, _ = model.split("/")
    return "/".join(name[:-1] if TEMPLATE.fullmatch(name[-1]) else name)


def _connection_of(
    backend: str,
    url: str,
    model: str,
    key: str,
    unenforced: bool,
    markers: Markers,
    timeout: float,
    concurrency: int,
    enforcement: str = "auto",
) -> Connection:
    """How to reach an engine that has `timeout` seconds for one answer."""
    return Connection(
        backend,
        url,
        model,
        key,
        enforcement=enforcement,
        unenforced=unenforced,
        markers=markers,
        timeouts=Timeouts(first=timeout, idle=timeout, total=timeout),
        connections=concurrency,
    )


def _pocket(
    directory: Path, ladder: str | None, samples: int, sampling: Sampling, concurrency: int, nested: bool | None
) -> Recipe:
    from router.backends.pocket_model import PocketModel

    rungs = LADDER if ladder is None else parse_ladder(ladder)
    name, cut = PocketModel.load(directory).fingerprint, _decided(nested, _pocket_obstacle(rungs, sampling))
    return Recipe(Pocket(directory), name, rungs, samples, sampling, concurrency, nested=cut)


def _pocket_obstacle(ladder: BudgetLadder, sampling: Sampling) -> str:
    """Why the pocket reasoner's thoughts cannot be cut; "" = they can."""
    if sampling.temperature:
        return "the pocket reasoner's thoughts are cut where they are greedy alone"
    return "" if all(rung.tokens is not None for rung in ladder.rungs) else "a rung has no cap"


def parse_ladder(ladder: str, efforts: bool = False) -> BudgetLadder:
    """The ladder that a text such as "0,512,unlimited" describes; with `efforts`, of names of efforts.

    A hosted model has no rung of a number of tokens but 0, which is the effort `none`.

    Raises:
        DatasetError: a rung is none of them, or the rungs do not rise.

    >>> [rung.tokens for rung in parse_ladder("0,512,unlimited").rungs]
    [0, 512, None]
    """
    names = [name.strip() for name in ladder.split(",")]
    for name in names:
        if efforts and name.isdecimal() and int(name):
            raise DatasetError(f"--ladder: a hosted model takes efforts such as low,medium,high, not {name} tokens")
        if not (name.isdecimal() or name == UNLIMITED or (efforts and name)):
            raise DatasetError(f"--ladder: {name!r} is neither a number of tokens nor {UNLIMITED!r}")
    rungs = tuple(ReasoningBudget(name, int(name) if name.isdecimal() else None) for name in names)
    caps = [float("inf") if rung.tokens is None else rung.tokens for rung in rungs]
    if len(rungs) < 2 or len(set(names)) < len(names) or any(a > b for a, b in pairwise(caps)):
        raise DatasetError("--ladder: needs two rungs or more, cheapest first")
    return BudgetLadder(rungs)
