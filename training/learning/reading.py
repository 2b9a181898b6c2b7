"""A learning folder, read: its pieces in arrays, and what is known of them."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from router.bundle.features import VERSION, WIDTH
from router.domain import Prompt
from router.learning import store
from router.learning.evidence import Evidence
from router.learning.status import Counts
from training.arrays import Mask, Matrix, Vector
from training.learning.pieces import Kind, Pieces
from training.model.embedding import DIMENSIONS

LATELY, SWITCHES = 100, 2
"""So many changes of the kind, at most, among so many of the newest pieces are those of an upgrade."""

REPORT_SECONDS = 86_400.0
"""Time that callers have to report, where they do, before an answer that differs counts against what was certified. No
request takes so long."""


@dataclass(frozen=True)
class Found:
    """What a learning folder holds.

    Attributes:
        pieces: those that can be used; None where there are none.
        counts: by what is known of them.
        oldest: number of the oldest piece of any kind that is still there.
        newest: number of the newest one.
        spent_tokens: tokens that all of them have cost.
        an_hour: pieces that have arrived, an hour.
        by_turns: those that arrive are now of one kind, now of another.
    """

    pieces: Pieces | None
    counts: Counts
    oldest: int = 0
    newest: int = 0
    spent_tokens: int = 0
    an_hour: float = 0.0
    by_turns: bool = False


def read(folder: Path, judge_misses: float = 0.0, after: int = 0, tenant_share: float = 1.0) -> Found:
    """The evidence in a learning folder. Only pieces of the newest one's kind can be used.

    Args:
        judge_misses: share of the true losses that a judge does not see, at least 0 and below 1.
        after: only pieces with greater numbers can be used.
        tenant_share: see `Pieces`.

    Raises:
        OutcomeFileError: the file cannot be read.
    """
    if not (folder / store.FILE).exists():
        return Found(None, Counts())
    every = list(store.read(folder, texts=False))
    if not every:
        return Found(None, Counts())
    kind = Kind.of(every[-1][1])
    # The bundles that are learned here read no other inputs.
    known = (kind.features, kind.width) == (VERSION, WIDTH + DIMENSIONS)
    used = [(number, one) for number, one in every if known and number > after and Kind.of(one) == kind]
    numbers = [number for number, _ in every]
    spent = sum(one.spent_tokens for _, one in every)
    if not used:
        return Found(None, Counts(unusable=len(every)), numbers[0], numbers[-1], spent)
    return Found(
        _pieces(kind, used, judge_misses, tenant_share),
        _counts([one for _, one in used], len(every)),
        numbers[0],
        numbers[-1],
        spent,
        _an_hour(np.array([one.at for _, one in used])),
        _by_turns([one for _, one in every[-LATELY:]]),
    )


def _pieces(kind: Kind, used: Sequence[tuple[int, Evidence]], judge_misses: float, tenant_share: float) -> Pieces:
    evidence = [one for _, one in used]
    losses = np.array([one.losses(judge_misses) for one in evidence])
    return Pieces(
        kind,
        np.array([number for number, _ in used]),
        [Prompt.of(f"{one.prompt}.{number}") for number, one in used],
        [one.group for _, one in used],
        np.stack([one.inputs for _, one in used]),
        losses,
        _settled_losses(evidence, losses, time.time()),
        np.array([one.thinking_tokens for _, one in used], dtype=float),
        # Also before anything is judged: bets that changed with the evidence would be two tests at the price of one.
        1 / (1 - judge_misses),
        not any(one.judge or one.reported is not None for _, one in used),
        [one.tenant for _, one in used],
        tenant_share,
    )


def _settled_losses(used: Sequence[Evidence], losses: Matrix, now: float) -> Matrix:
    """The least that each rung will have lost once all have spoken [pieces, rungs].

    Where anyone finds shorter thoughts better, so may the verdict on a request that is under way. After a day it is not
    under way any more: the engine failed, and it stays lost.
    """
    gains = any(one.trusted for one in used)
    waits = np.array([gains and not one.spent_tokens and now - one.at < REPORT_SECONDS for one in used])
    same = np.array([one.same for one in used])
    least = np.where(waits[:, None] & ~same, -1.0, 0.0)
    return np.where(_settled(used, now)[:, None], losses, np.minimum(losses, least))


def _settled(used: Sequence[Evidence], now: float) -> Mask:
    """Pieces of which nobody will say more [pieces]: judge and caller have spoken, or the caller's time is over.

    The bounds of the others stand for what nobody has said yet, and fall when it is said.
    """
    judged, reported = any(one.judge for one in used), any(one.reported is not None for one in used)

    def settled(one: Evidence) -> bool:
        # Without tokens no answer behind a cut was seen: the request is under way, or the engine failed.
        if not one.spent_tokens or (judged and not one.judge):
            return False
        if one.trusted and one.judged[-1] is not None:  # no report changes that
            return True
        return not reported or one.reported is not None or now - one.at >= REPORT_SECONDS

    return np.array([settled(one) for one in used])


def _counts(used: Sequence[Evidence], every: int) -> Counts:
    known = Counter(map(_known, used))
    groups, tenants = {one.group for one in used}, Counter(one.tenant for one in used)
    largest = max(tenants.values()) / len(used)
    return Counts(
        pieces=len(used),
        groups=len(groups),
        unusable=every - len(used),
        tenants=len(tenants),
        largest_tenant=largest,
        **known,
    )


def _known(one: Evidence) -> str:
    """What is known of the answers that differ from the served one, a field of `Counts`."""
    if all(one.same):
        return "free"
    if all(same or judged is not None for same, judged in zip(one.same, one.judged, strict=True)):
        return "judged"
    return "unknown" if one.reported is None else "reported"


def _by_turns(lately: Sequence[Evidence]) -> bool:
    return sum(Kind.of(one) != Kind.of(other) for one, other in pairwise(lately)) > SWITCHES


def _an_hour(at: Vector) -> float:
    seconds = float(at.max() - at.min())
    return 3600 * (len(at) - 1) / seconds if seconds > 0 else 0.0
