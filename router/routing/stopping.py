"""Chooses a rule that stops within the thought, where one is certified and may run."""

from collections.abc import Sequence
from dataclasses import replace

from router.domain import Certificate, Choice, MaxLoss, RoutingOptions, Score
from router.routing import reasons
from router.routing.policy import Policy
from router.stopping.evidence import PROBE_TOKENS
from router.stopping.rules import StoppingCertificate


def choose(policy: Policy, score: Score, options: RoutingOptions, *, climbs: bool) -> Choice:
    """The choice of the stopping rule that is certified for the target, else of the policy.

    Args:
        climbs: the thought can be had step by step. Where it cannot, the choice only says where a caller could look.

    Raises:
        InvalidRequest, TargetUnmet: as `Policy.choose`.
    """
    certificate = applicable(policy, score, options)
    if certificate is None:
        return policy.choose(score, options)
    places = certificate.checkpoints(len(policy.ladder))
    if not climbs:
        return replace(policy.choose(score, options), checkpoints=places)
    reason = reasons.stopping(certificate.rule, policy.ladder)
    proof = Certificate(certificate.alpha, certificate.delta, 0.0, certificate.prompts, agreement=certificate.agreement)
    meets = policy.foresees(options.target, score, policy.top)
    return Choice(policy.top, meets, proof, reason, certificate, places)


def applicable(policy: Policy, score: Score | None, options: RoutingOptions) -> StoppingCertificate | None:
    """The stopping rule for a request; None where none is certified for its target, or its options keep one out.

    A certificate is about thoughts that may stop at every rung from the first probe on, and may reach the top.

    Args:
        score: None = not scored, so that no deadline can be predicted.
    """
    certificate = covering(policy.stopping, options)
    if certificate is None or policy.suspended or (score is not None and score.far):
        return None
    before = policy.certificate(options.target)
    if before is not None and before.alpha > certificate.alpha:
        return None  # training left out a rule for this alpha, since a choice before the thought spends less
    places = certificate.checkpoints(len(policy.ladder))
    if not places or any(policy.ladder.rungs[i].tokens is None for i in places):  # a named effort is no place to look
        return None
    return certificate if {*places, policy.top} <= set(_allowed(policy, score, options, places)) else None


def covering(certificates: Sequence[StoppingCertificate], options: RoutingOptions) -> StoppingCertificate | None:
    """The least strict certificate that still covers the target; None where there is none."""
    target = options.target
    if not isinstance(target, MaxLoss) or target.per_prompt:  # what is certified is certified on average
        return None
    usable = [one for one in certificates if one.alpha <= target.value]
    return max(usable, key=lambda one: one.alpha, default=None)


def _allowed(policy: Policy, score: Score | None, options: RoutingOptions, places: Sequence[int]) -> list[int]:
    """Rungs within bounds, and within a deadline that leaves time for every probe."""
    if options.max_latency is None:
        return policy.within_bounds(options)
    if score is None:
        return []
    latency = policy.latency
    probing = len(places) * (latency.first_token + latency.per_token * PROBE_TOKENS)
    return policy.affordable(score, replace(options, max_latency=options.max_latency - probing))
