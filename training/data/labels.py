"""The number of outcomes that retraining needs, checked before anything slow is imported or fitted."""

from math import ceil

from router.domain import DecisionSource
from training.data.errors import DatasetError
from training.data.log import read
from training.data.splits import SPLITS

CHOSEN = (DecisionSource.CLASSIFIER.value, DecisionSource.CACHE.value, DecisionSource.EXPLORE.value)
"""Sources of decisions that the policy made; a rung that a caller chose or a conversation kept says nothing of it."""

FEWEST = 500
"""Smallest effective sample with which an estimate counts; an effective sample is never larger than the sample."""

NEEDED = round(FEWEST / SPLITS["fit"])
"""Outcomes of such decisions that a log needs, because only the largest share of its prompts judges."""


def require_labels(log: str) -> None:
    """Raise DatasetError if a log has too few outcomes to learn from, OutcomeLogError if it cannot be read."""
    chosen = [row["source"] in CHOSEN for row in read(log) if row["correct"] is not None]
    if (count := sum(chosen)) < FEWEST:
        others = f" and {len(chosen) - count} of other decisions, which do not count" if count < len(chosen) else ""
        raise DatasetError(
            f"the log has {count} outcome{'s' * (count != 1)} of decisions that the policy made{others}; "
            f"about {NEEDED} are needed to retrain"
        )


def require_judges(judging: int) -> None:
    """Raise DatasetError if too few of the outcomes are left to judge a challenger by."""
    if judging < FEWEST:
        raise DatasetError(
            f"{judging} of the log's outcomes judge a challenger, {FEWEST} are needed: {remedy(judging, judging)}"
        )


def remedy(effective: float, judging: int) -> str:
    """What to do about an effective sample below FEWEST, which that many outcomes give."""
    more = ceil(judging * (FEWEST / max(effective, 1) - 1) / SPLITS["fit"]) if judging else NEEDED
    return f"report outcomes of about {more} more decisions"
