"""Where a conversation goes up from what it keeps: a function of the pin, the request and its score alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from router.domain import Escalation, Pinned, Role, RouteRequest, RoutingOptions, Score
from router.routing.policy import Policy
from router.routing.rounds import Round, last_round


@dataclass(frozen=True, slots=True)
class Step:
    """What a turn makes of what its conversation keeps.

    Attributes:
        pinned: what it keeps from now on.
        before: what it kept.
        cause: why it goes up; None = it does not.
    """

    pinned: Pinned
    before: Pinned
    cause: Escalation | None = None


def step(kept: Pinned, policy: Policy, request: RouteRequest, score: Score | None) -> Step:
    """The step from what is kept. Raises InvalidRequest where the bounds leave no rung.

    Args:
        score: None = the turn was not scored, or the classifier failed.
    """
    escalate, far = request.options.escalate, _is_far(request, score)
    if not (escalate or far):
        return Step(kept, kept)
    round_ = last_round(request.prompt)
    if round_ is not None and round_.is_open:
        return Step(kept, kept)
    judged, problem = _judged(kept, round_) if escalate else (kept, None)
    if far and score is not None and (longest := _longest(kept, policy, score, request.options)) is not None:
        return Step(replace(judged, index=longest, stops=False), judged, Escalation.UNLIKE)
    if problem is not None and (longer := _one_rung_more(kept, policy, request.options)) is not None:
        return Step(replace(judged, index=longer, stops=False), judged, problem)
    return Step(judged, judged)


def nearest(pinned: Pinned, allowed: Sequence[int]) -> int:
    """The rung allowed that comes nearest: the pinned one, else a shorter one, else a longer one."""
    return max((i for i in allowed if i <= pinned.index), default=allowed[0])


def _is_far(request: RouteRequest, score: Score | None) -> bool:
    """Whether the user's new turn is unlike the calibration prompts."""
    return score is not None and score.far and request.prompt.messages[-1].role is Role.USER


def _judged(kept: Pinned, complete: Round | None) -> tuple[Pinned, Escalation | None]:
    """What is kept once all that went wrong has counted, and what that was."""
    if complete is None or complete.name == kept.judged:
        return replace(kept, cut=False), Escalation.TRUNCATED if kept.cut else None
    problem = Escalation.TRUNCATED if kept.cut else complete.problem
    return replace(kept, cut=False, judged=complete.name), problem


def _longest(kept: Pinned, policy: Policy, score: Score, options: RoutingOptions) -> int | None:
    """The longest rung allowed and in time; None where that is no more than is kept."""
    in_time = policy.affordable(score, options)
    return in_time[-1] if in_time and Pinned(in_time[-1]).length > kept.length else None


def _one_rung_more(kept: Pinned, policy: Policy, options: RoutingOptions) -> int | None:
    """The next rung, or the same one where a rule ended the thought before; None where that is not allowed."""
    allowed = policy.within_bounds(options)
    index = kept.index if kept.stops else nearest(kept, allowed) + 1
    return index if index in allowed and policy.surely_in_time(index, options) else None
