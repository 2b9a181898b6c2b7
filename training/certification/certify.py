"""Certificates by Learn-then-Test (Angelopoulos et al. 2021) with a fixed sequence of policies.

Relative targets: the mean loss against the top rung, also that of policies which keep the target by each prompt's own
forecast. `sequences` has the policies.

Absolute targets. Of the prompts that a policy claims to answer with quality q, at most 1 - q may be wrong (selective
risk). The policy takes the smallest rung with P(correct) >= threshold; a higher threshold is more careful.

In both cases policies are tested from the most careful one on, until one fails. The last policy that passed is
certified: with probability 1 - delta over the calibration data its true mean loss is at most alpha. The prompts of a
group are not independent, so losses are averaged within groups first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from router.bundle.task_certificate import TaskCertificate
from router.digits import counted, verb
from router.domain import DEFAULT_MAX_LOSS, Certificate
from router.stopping.rules import StoppingCertificate
from training.arrays import Matrix
from training.certification.betting import DELTA, Groups, betting_p_value, fixed_sequence_test
from training.certification.sequences import (
    CandidatePolicy,
    PolicySequence,
    Sample,
    StoppingPolicy,
    by_task,
    cheapest,
    policy_sequences,
    predicted_losses,
    shared,
)
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError

ALPHAS = (0.005, 0.01, 0.02, 0.05, 0.1)
QUALITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
TARGET = DEFAULT_MAX_LOSS
"""The loss that callers who name no target allow, at which methods are compared, too."""

MARGINS = tuple(np.round(np.arange(0.2, -0.0001, -0.01), 4).tolist())
"""Margins added to an absolute target, most careful first."""


@dataclass(frozen=True)
class Proofs:
    """The certificates that could be proved.

    Attributes:
        per_prompt: those for relative targets by each prompt's own forecast.
        per_task: what the relative ones say of each family of tasks; empty where they are about the mean alone.
        refused: the other targets in words, each with the reason.
        reference: position of the certified rung that is right most often, if it is so at least as often as the top
            one; None where that is the top one.
        stopping: those of rules that stop within the thought and spend fewer tokens than `relative` has for the target.
    """

    relative: tuple[Certificate, ...]
    absolute: tuple[Certificate, ...]
    refused: dict[str, str]
    reference: int | None = None
    per_prompt: tuple[Certificate, ...] = ()
    stopping: tuple[StoppingCertificate, ...] = ()
    per_task: tuple[TaskCertificate, ...] = ()


def tested_target(max_loss: float) -> float | None:
    """The loosest target that is tested and within `max_loss`; None where there is none."""
    return max((alpha for alpha in ALPHAS if alpha <= max_loss), default=None)


def require_tested(max_loss: float) -> float:
    """As `tested_target`. Raises DatasetError where there is none."""
    if (target := tested_target(max_loss)) is None:
        raise DatasetError(f"--max-loss {max_loss:g}: the strictest target that is tested is {min(ALPHAS):g}")
    return target


def loss_target(alpha: float, per_prompt: bool = False) -> str:
    """The name of a relative target among those that were refused."""
    return f"loss of at most {alpha:g}{' per prompt' if per_prompt else ''}"


def quality_target(quality: float) -> str:
    """The name of an absolute target among those that were refused."""
    return f"quality of at least {quality:g}"


def stopping_target(alpha: float) -> str:
    """The name of a relative target among those that no rule within the thought was certified for."""
    return f"{loss_target(alpha)} by stopping"


def certify(
    held_out: Sample,
    fitted: Sample | None = None,
    stopping: Sequence[PolicySequence] = (),
    share: float = 1.0,
    per_task: bool = False,
) -> Proofs:
    """Certificates for ALPHAS and QUALITIES.

    Args:
        held_out: the certify split, which nothing was fitted or chosen on.
        fitted: the fit split. Fixed rungs are tested on its labels, too, since they have learned nothing from them.
        stopping: rules that stop within the thought, in the order of their tests; not tested per task.
        share: of delta that the tests may spend, where the labels are used again and again.
        per_task: a relative target must be kept in every family of tasks, not only on average.
    """
    proofs = certify_relative(held_out, fitted, stopping, share, per_task)
    claims = certify_absolute(held_out, share)
    return replace(proofs, absolute=claims.absolute, refused=proofs.refused | claims.refused)


def certify_relative(
    held_out: Sample,
    fitted: Sample | None = None,
    stopping: Sequence[PolicySequence] = (),
    share: float = 1.0,
    per_task: bool = False,
) -> Proofs:
    """Certificates for ALPHAS. Arguments as `certify`."""
    *sequences, within = shared(*policy_sequences(held_out, fitted, per_task), () if per_task else stopping)
    sequences, within = [one.at(share) for one in sequences], [one.at(share) for one in within]
    best = {alpha: cheapest(sequences, alpha) for alpha in ALPHAS}
    relative, refused = _relative(best.__getitem__)
    stops, why = _stopping(within, best)
    refused |= why

    def by_forecast(alpha: float) -> CandidatePolicy | str:
        sequence = predicted_losses(alpha, held_out, fitted).at(share)
        return (by_task(sequence, held_out) if per_task else sequence).proved(alpha)

    per_prompt, also = _relative(by_forecast, True)
    reference = _reference(replace(sequences[0], tasks=()))
    tasks = _by_task(relative, sequences) if per_task else ()
    return Proofs(relative, (), refused | also, reference, per_prompt, stops, tasks)


def certify_absolute(held_out: Sample, share: float = 1.0) -> Proofs:
    """Certificates for QUALITIES. Arguments as `certify`."""
    outcomes, prediction = held_out
    refused, absolute, groups = {}, [], Groups(outcomes.groups)
    for wanted in QUALITIES:
        proof = _absolute(outcomes, prediction.claimed, wanted, groups, DELTA * share)
        if isinstance(proof, str):
            refused[quality_target(wanted)] = proof
        else:
            absolute.append(proof)
    return Proofs((), tuple(absolute), refused)


def _by_task(certificates: Sequence[Certificate], sequences: Sequence[PolicySequence]) -> tuple[TaskCertificate, ...]:
    """What each certificate says of each family of tasks."""
    fixed, learned = sequences
    rows = []
    for one in certificates:
        sequence = learned if one.rung is None else fixed
        for name, part in sequence.parts(one.alpha).items():
            families = tuple(sorted({sequence.tasks[i] for i in part}))
            rows.append(TaskCertificate(name, one.alpha, len(part), families))
    return tuple(rows)


def _relative(
    proved: Callable[[float], CandidatePolicy | str], per_prompt: bool = False
) -> tuple[tuple[Certificate, ...], dict[str, str]]:
    """The certificates for ALPHAS, and why there are no others."""
    policies = {alpha: proved(alpha) for alpha in ALPHAS}
    certified = tuple(one.certificate(alpha) for alpha, one in policies.items() if not isinstance(one, str))
    return certified, {loss_target(alpha, per_prompt): why for alpha, why in policies.items() if isinstance(why, str)}


def _stopping(
    sequences: Sequence[PolicySequence], others: Mapping[float, CandidatePolicy | str]
) -> tuple[tuple[StoppingCertificate, ...], dict[str, str]]:
    """The certificates of rules within the thought that spend fewer tokens than `others`, and why there are no more."""
    certified, refused = [], {}
    for alpha, other in others.items() if sequences else ():
        best = cheapest(sequences, alpha)
        if isinstance(best, StoppingPolicy) and best.tokens < _instead(best, other):
            certified.append(best.stopping(alpha))
        else:
            refused[stopping_target(alpha)] = best if isinstance(best, str) else _dear(best, other)
    return tuple(certified), refused


def _instead(best: CandidatePolicy, other: CandidatePolicy | str) -> float:
    """Tokens that a prompt takes otherwise; without another policy, those of the top rung."""
    return best.tokens + best.saved if isinstance(other, str) else other.tokens


def _dear(best: CandidatePolicy, other: CandidatePolicy | str) -> str:
    cheaper = "the top rung" if isinstance(other, str) else "a choice before the thought"
    spent = f"{best.tokens:,.0f} tokens a calibration prompt, probes included"
    return f"no saving: the best rule takes {spent}, where {cheaper} takes {_instead(best, other):,.0f}"


def _reference(fixed: PolicySequence) -> int | None:
    lowest = fixed.proved(ALPHAS[-1])
    if isinstance(lowest, str):
        return None
    certified = fixed.policies[: fixed.policies.index(lowest) + 1]
    if any(np.isnan(one.values).any() for one in certified):  # only all labels say which one is right most often
        return None
    best = min(certified, key=lambda one: float(one.values.mean()))
    return best.rung if best.values.mean() <= 0 else None


def _absolute(
    outcomes: Outcomes, quality: Matrix, wanted: float, groups: Groups, delta: float = DELTA
) -> Certificate | str:
    # With fewer than log(delta) / log(q) prompts not even an errorless record proves quality q; three times as many
    # leave room for errors.
    enough = int(np.ceil(np.log(delta) / np.log(wanted))) * 3
    fewest, tests = max(enough, 30), []
    for threshold in (min(wanted + margin, 0.999) for margin in MARGINS):
        meets = quality >= threshold
        chosen, among = meets.argmax(axis=1), meets.any(axis=1)
        if among.sum() < fewest:  # the count depends on predictions alone, so skipping spends no error
            continue
        wrong = 1 - outcomes.correct[np.arange(len(chosen)), chosen]
        tests.append((threshold, groups.means(wrong, among)))
    if not tests:  # the last threshold is the lowest one, which most prompts reach
        few = int(among.sum())
        are = verb(few, "is", "are")
        return f"{few} of {len(among)} calibration prompts {are} predicted to reach it, {fewest} are needed"
    if missing := int(np.isnan(tests[0][1]).sum()):
        return f"{counted(missing, 'label')} {verb(missing, 'is', 'are')} missing"
    p_values = (betting_p_value(values, 1 - wanted, delta) for _, values in tests)
    last, why = fixed_sequence_test(p_values, [threshold for threshold, _ in tests], delta)
    return why if last is None else Certificate(round(1 - wanted, 6), DELTA, last, len(groups))
