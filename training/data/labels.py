"""The number of outcomes that retraining needs, checked before anything slow is imported or fitted."""

from training.data.errors import DatasetError
from training.data.log import read
from training.data.splits import SPLITS

FEWEST = 500
"""Smallest effective sample with which an estimate counts; an effective sample is never larger than the sample."""

NEEDED = round(FEWEST / SPLITS["fit"])
"""Decisions with an outcome that a log needs, because only the largest share of its prompts judges."""


def require_labels(log: str) -> None:
    """Raise DatasetError if a log has too few decisions with an outcome, OutcomeLogError if it cannot be read."""
    labelled = sum(row["correct"] is not None for row in read(log))
    if labelled < FEWEST:
        raise DatasetError(f"the log has {labelled} decisions with an outcome, about {NEEDED} are needed to retrain")


def require_judges(judging: int) -> None:
    """Raise DatasetError if too few of the decisions with an outcome are left to judge a challenger by."""
    if judging < FEWEST:
        raise DatasetError(
            f"the log has {judging} decisions to judge a challenger by, {FEWEST} are needed: "
            f"report outcomes of about {NEEDED} decisions"
        )
