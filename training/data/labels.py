"""The number of outcomes that retraining needs, checked before anything slow is imported or fitted."""

from collections import Counter
from math import ceil

from router.digits import counted
from router.domain import DecisionSource, Rule
from router.outcomes.rows import Row
from training.data.errors import DatasetError
from training.data.log import read
from training.data.splits import SPLITS

CHOSEN = (DecisionSource.CLASSIFIER.value, DecisionSource.CACHE.value, DecisionSource.EXPLORE.value)
"""Sources of decisions that the policy made; a rung that a caller chose or a conversation kept says nothing of it."""

NOT_CHOSEN, NO_TEXT = "not the policy's choice", "without the prompt's text"
STOPPED = "whose thought a rule could stop"
NO_COMPLETION = "without a completion and its thinking tokens"
"""Reasons why a labelled decision cannot be used."""

REMEDIES = {
    NOT_CHOSEN: "",
    STOPPED: " (the thought chose the rung, so its answer says nothing of a rung that the text chooses)",
    NO_TEXT: " (serve with BUDGET_ROUTER_LOG_PROMPTS=true)",
    NO_COMPLETION: " (Generate logs one, Decide alone does not)",
}

FEWEST = 500
"""Smallest effective sample with which an estimate counts; an effective sample is never larger than the sample."""

NEEDED = round(FEWEST / SPLITS["fit"])
"""Outcomes of such decisions that a log needs, because only the largest share of its prompts judges."""


def require_labels(log: str) -> None:
    """Raise DatasetError if a log has too few outcomes to learn from, OutcomeLogError if it cannot be read."""
    labelled = Counter(unusable(row) for row in read(log) if row["correct"] is not None)
    usable = labelled.pop("", 0)
    if usable < FEWEST:
        raise DatasetError(
            f"{counted(usable, 'outcome')} of the log can be used, about {NEEDED} are needed to retrain"
            f"{_left_out(labelled)}"
        )


def unusable(row: Row) -> str:
    """Why a labelled decision says nothing about another policy, as `retrain` counts it; "" where it does."""
    if row["source"] not in CHOSEN:
        return NOT_CHOSEN
    if row.get("rule") == Rule.STOPPING.value:
        return STOPPED
    if row["prompt"] is None:
        return NO_TEXT
    if row["thinking_tokens"] is None or row["finish"] is None:
        return NO_COMPLETION
    return ""


def _left_out(reasons: Counter[str]) -> str:
    """The outcomes that cannot be used, by reason, in words that end a sentence."""
    if not reasons:
        return ""
    which = "; ".join(f"{count} {why}{REMEDIES[why]}" for why, count in reasons.most_common())
    return f"; left out: {which}"


def require_judges(judging: int) -> None:
    """Raise DatasetError if too few of the outcomes are left to judge a challenger by."""
    if judging < FEWEST:
        raise DatasetError(
            f"{judging} of the log's outcomes judge a challenger, {FEWEST} are needed: {remedy(judging, judging)}"
        )


def remedy(effective: float, judging: int) -> str:
    """What to do about an effective sample below FEWEST, which that many outcomes give."""
    more = ceil(judging * (FEWEST / max(effective, 1) - 1) / SPLITS["fit"]) if judging else NEEDED
    return f"report outcomes of about {counted(more, 'more decision')}"
