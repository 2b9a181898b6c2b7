"""What a gold set can certify, whose labels are used again and again, and what to do where that is too little."""

from collections.abc import Iterable
from math import ceil

import numpy as np

from router.bundle.manifest import Bundle
from router.digits import counted
from training.arrays import Vector
from training.certification import sample_size
from training.certification.betting import DELTA, Groups, least_p_value, without_loss
from training.certification.certify import ALPHAS, require_tested
from training.certification.delta import share
from training.certification.sequences import SHARE
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError
from training.data.splits import LABELLED, split_of
from training.progress import say


def require_certifiable(gold: Outcomes, max_loss: float, champion: Bundle, uses: int = 0) -> None:
    """Raise DatasetError if no challenger could be certified for the target, however good it is.

    Args:
        champion: the serving bundle, whose targets are proposed.
        uses: how often the gold set's labels certified before.
    """
    strict = require_tested(max_loss)
    certify, every = _best_losses(gold, "certify"), _best_losses(gold, "fit", "certify")
    level = SHARE * share(uses + 1)
    have, least = len(every), without_loss(strict, level)
    possible = [alpha for alpha in ALPHAS if least_p_value(every, alpha) <= level]
    if strict in possible:
        if least_p_value(certify, strict) > level:
            say(
                f"retrain: at a loss of {strict:g} only one rung for everybody can be certified; a choice by prompt "
                f"takes {counted(least, 'prompt')} of the gold set's certify split, which has {len(certify)}"
            )
        return
    raise DatasetError(
        f"the gold set cannot certify a loss of at most {max_loss:g}{worn(uses)}: it has {counted(have, 'prompt')} "
        f"outside its test split, about {least} are needed where nothing is lost{instead(possible, champion)}"
        f"{_renewal(strict, least - have) if uses else ''}"
    )


def worn(uses: int) -> str:
    """What earlier uses of labels leave, in words; "" where there are none."""
    if not uses:
        return ""
    left, so_often = DELTA * share(uses + 1), f"{counted(uses, 'time')} before"
    return f", because its labels certified {so_often}, which leaves {left:.2g} of a delta of {DELTA:g} for this test"


def _renewal(alpha: float, missing: int) -> str:
    """How many new labels restore what earlier uses have spent."""
    more = f"label about {ceil(missing / LABELLED)} more prompts" if missing > 0 else "label more prompts"
    alone = sample_size.in_file_for_a_fixed_rung(without_loss(alpha, SHARE * share(1)))
    return f"; {more} and add them, or about {alone} new ones, which as a gold set of their own start anew"


def _best_losses(gold: Outcomes, *sides: str) -> Vector:
    """Losses by group, in some splits, of a policy that knows the answers: nothing is lost, and some prompts gain."""
    inside = np.array([split_of(group) in sides for group in gold.groups])
    return Groups(gold.groups).means(gold.correct[:, -1] - gold.correct.max(axis=1), inside)


def instead(possible: Iterable[float], champion: Bundle) -> str:
    """The targets that a challenger can have and the serving bundle has, in words that end a sentence."""
    served = {one.alpha for one in champion.manifest.certificates}
    both = [f"--max-loss {alpha:g}" for alpha in possible if alpha in served]
    return f"; possible, and certified for the serving bundle: {' or '.join(both)}" if both else ""
