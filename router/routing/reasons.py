"""Why the policy chose a rung, in words. Numbers are those of the forecasts, in the same digits as elsewhere."""

import math
from collections.abc import Callable, Sequence

from router.digits import ROUNDING, bound, counted, gain
from router.domain import BudgetLadder, Certificate, Escalation, MaxLoss, MinQuality, Pinned, QualityTarget, Score
from router.stopping.rules import AgreeRule, LearnedRule, StoppingRule, ThresholdRule

UNLIKE = "the prompt is unlike the calibration prompts"
UNCOVERED = "the next longer one, which no certificate covers"
KEEPS_RUNG, KEEPS_RULE = "the conversation keeps its rung", "the conversation keeps its rule"
NOT_ALLOWED = "the conversation's rung is not allowed: the nearest that is"

WENT_WRONG = {
    Escalation.TOOL_FAILED: "a tool failed",
    Escalation.REPEATED_CALL: "a tool was called again with the same arguments",
    Escalation.TRUNCATED: "the answer before was cut off, or there was none",
    Escalation.UNLIKE: UNLIKE,
}


def worth(score: Score, wanted: int, top: str, target: MaxLoss) -> str:
    """Why the rung worth most is worth more than the top one, which is called `top`."""
    best, quality = score.quality[-1], score.quality[wanted]
    if wanted == len(score.quality) - 1:
        return "the top rung is worth its tokens"
    gained = gain(best, quality, target.value)
    if best <= quality:
        return f"rung {top} is predicted to gain {gained}"
    reason = f"rung {top} is predicted to gain {gained} P(correct), too little for {_further(score, wanted)}"
    if best - quality <= target.value + ROUNDING:
        return reason
    return f"{reason}; the loss of {target.value:g} is promised on average over prompts, not for this one"


def _further(score: Score, wanted: int) -> str:
    """How much longer the top rung thinks: in tokens, or in rungs where tokens are not known."""
    here, top = score.mean[wanted], score.mean[-1]
    if here is None or top is None or None in score.mean:
        return _counted(len(score.mean) - 1 - wanted, "rung")
    # As both are shown: rounded.
    return _counted(max(round(top) - round(here), 0), "token")


def _counted(number: int, what: str) -> str:
    return counted(number, f"more {what}") if number else f"less than 1 more {what}"


def stopping(rule: StoppingRule, ladder: BudgetLadder) -> str:
    """When a thought ends under a rule that stops within it."""
    first, top = ladder.rungs[rule.first].name, ladder.rungs[-1].name
    match rule:
        case AgreeRule(matches=1):
            when = "its answer is that of the rung before"
        case AgreeRule(matches=matches):
            when = f"its answer is that of the {matches} rungs before"
        case ThresholdRule(least_logprob=least):
            when = f"the mean log-probability of its answer is at least {least:g}"
        case LearnedRule():
            when = "no further rung is predicted to be worth its tokens"
    return f"looked at from rung {first} on, the thought ends once {when}, at rung {top} at the latest"


def went_up(cause: Escalation, before: Pinned, ladder: BudgetLadder) -> str:
    """Why a conversation went up from what it kept."""
    if before.stops:
        return f"{WENT_WRONG[cause]}: no rule ends the conversation's thoughts any more"
    return f"{WENT_WRONG[cause]}: the conversation goes up from rung {ladder.rungs[before.index].name}"


def for_everybody(top: str) -> str:
    """Why every prompt gets the same rung, which is shorter than the top one."""
    return f"certified for every prompt: rung {top} gains too little on average"


def uncertified(target: QualityTarget, certificates: Sequence[Certificate]) -> str:
    """What keeps a target from being certified; the certificates are those of its kind."""
    relative = isinstance(target, MaxLoss)
    some = ", ".join(f"{c.alpha if relative else round(1 - c.alpha, 6):g}" for c in certificates)
    what = "a loss" if relative else "P(correct)"
    whose = " per prompt" if isinstance(target, MaxLoss) and target.per_prompt else ""
    return f"no certificate for {what} of {target.value:g}{whose}" + (f" (there are some for {some})" if some else "")


def passing(target: QualityTarget, certificate: Certificate) -> str:
    """What a rung does that passes the certified threshold, and why that is not the target itself."""
    threshold = certificate.threshold
    if isinstance(target, MinQuality):
        does, reach = f"reaches P(correct) {bound(threshold)}", "from which on"
    elif threshold < 0:
        does, reach = f"is predicted to gain at least {-threshold:g} over the top one", "from which on"
    else:
        does, reach = f"is predicted to lose at most {threshold:g}", "up to which"
    if threshold == target.value:
        return does
    return f"{does}, {reach} forecasts are certified for the target of {target.value:g}"


def late(rung: str, seconds: float | None, limit: float) -> str:
    """Why a rung breaks a deadline: it may take `seconds`, and the deadline leaves `limit`."""
    # Rounded away from each other, so that the numbers show it.
    left = f"the deadline leaves {_significant(limit, math.floor)} s"
    if seconds is None:
        return f"nothing bounds the time of rung {rung}, {left}"
    return f"rung {rung} may take {_significant(seconds, math.ceil)} s, {left}"


def _significant(seconds: float, rounded: Callable[[float], int]) -> str:
    """Seconds to three digits."""
    scale = 10.0 ** (2 - math.floor(math.log10(max(seconds, 1e-9))))
    whole = round(seconds * scale, 6)  # 1.5 is 150, whatever binary makes of it
    return f"{rounded(whole) / scale:.12g}"
