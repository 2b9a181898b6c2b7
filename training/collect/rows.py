"""Answers become rows of outcomes: how right each is, how it ended, what it cost."""

from collections.abc import Sequence
from datetime import UTC, datetime

from router import chat_form
from router.domain import FinishReason, LabelSource
from router.stopping.evidence import Probe
from training.collect.agreement import AGREEMENT, agrees, key_of
from training.collect.judge import JUDGE
from training.collect.questions import Question
from training.collect.scorers import SCORERS
from training.collect.units import FAILED, Answer, OutcomeRow, Recipe, Unit, UnitResult

Label = tuple[float, str]
"""How right an answer is (0..1), and how it ended."""

UNSCORED = frozenset({FAILED.finish} | {reason.value for reason in FinishReason} - {"natural", "forced", "converged"})
"""Endings without a whole answer. A cut answer may hold the right number by chance, as an intermediate result."""


def tokens_of_trace(answers: Sequence[Answer]) -> int:
    """Tokens drawn for the answers of all rungs, cut from one thought: that of the last rung holds all others."""
    known = [one for one in answers if one.thinking_tokens is not None and one.answer_tokens is not None]
    answered = {id(one): (one.answer_tokens or 0) + _probing(one) for one in known}  # a natural answer is drawn once
    return max((one.thinking_tokens or 0 for one in known), default=0) + sum(answered.values())


def _probing(answer: Answer) -> int:
    """Tokens of the probe, where it is not the answer itself, and the one that tells of the end marker."""
    probe = answer.probe
    if probe is None:
        return 0
    return (0 if probe.text == answer.text else probe.tokens) + (probe.end_logprob is not None)


def unit_result(
    unit: Unit,
    answers: Sequence[Answer],
    recipe: Recipe,
    drawn: int | None = None,
    verdicts: Sequence[Label] | None = None,
) -> UnitResult:
    """Score the answers of a unit: one at its rung, or one for every rung.

    Args:
        drawn: tokens that the engine drew; None = those of the answers, each with its thought.
        verdicts: labels by a judge; None = by the question's scorer.
    """
    # The answers of all rungs begin at rung 0; those of a unit with a rung begin, and end, at that rung.
    orders = range(unit.rung or 0, len(recipe.ladder))
    given = labels(unit.question, answers) if verdicts is None else verdicts
    labelled = zip(orders, answers, given, strict=False)
    rows = [_row(unit, answer, order, recipe, *label) for order, answer, label in labelled]
    if drawn is None:
        drawn = sum(row["total_tokens"] or 0 for row in rows)
    return UnitResult(unit.key, rows, drawn, _cause(rows, answers))


def _cause(rows: Sequence[OutcomeRow], answers: Sequence[Answer]) -> str:
    causes = (f"rung {row['rung']}: {answer.cause}" for row, answer in zip(rows, answers, strict=False) if answer.cause)
    return next(causes, "")


def labels(question: Question, answers: Sequence[Answer]) -> list[Label]:
    """How right each answer is (0..1), and how it ended; by agreement, the answers must be those of all rungs."""
    if question.scorer not in AGREEMENT:
        return [label(question, answer) for answer in answers]
    top = answers[-1]
    if top == FAILED:  # nothing to compare with
        return [(0.0, FAILED.finish)] * len(answers)
    return [_compared(question, answer, top) for answer in answers]


def _compared(question: Question, answer: Answer, top: Answer) -> Label:
    if answer.finish in UNSCORED or top.finish in UNSCORED:
        # Where the top rung gives no whole answer, nothing is lost by giving none either.
        both = answer.finish in UNSCORED and top.finish in UNSCORED and answer != FAILED
        return float(both), answer.finish
    return agrees(answer.text, top.text, question.scorer).correct, answer.finish


def label(question: Question, answer: Answer) -> Label:
    """How right an answer is (0..1), and how it ended; what has no whole answer is not merely wrong."""
    if answer.finish in UNSCORED:
        return 0.0, answer.finish
    grade = SCORERS[question.scorer](answer.text, question.reference, question.metadata)
    return grade.correct, answer.finish if grade.parsed else "unparsable"


def _row(unit: Unit, answer: Answer, order: int, recipe: Recipe, correct: float, ended: str) -> OutcomeRow:
    question, rung = unit.question, recipe.ladder.rungs[order]
    conversation, identity = question.conversation, question.identity
    return {
        "prompt": question.prompt,
        "messages": None if conversation is None else chat_form.to_json(conversation),
        "prompt_id": identity,
        "group": question.group,
        "task": question.task,
        "backend": recipe.backend,
        "model": recipe.fingerprint,
        "rung": rung.name,
        "rung_order": order,
        "budget_tokens": rung.tokens,
        "trace_id": f"{identity}/{unit.sample}" if recipe.nested else None,
        "sample_id": unit.sample,
        "correct": correct,
        "label_source": _source(question),
        "thinking_tokens": answer.thinking_tokens,
        "total_tokens": _total(answer),
        "finish": ended,
        "attempts": answer.attempts,
        # A cut answer is wrong whatever it says, so it equals none that says the same.
        "answer": key_of(answer.text, question.scorer) if ended not in UNSCORED else None,
        "thinking_ended": answer.thinking_ended,
        **_evidence(answer.probe, question.scorer),
        "observed_at": datetime.now(UTC).isoformat(timespec="microseconds"),
    }


def _evidence(probe: Probe | None, scorer: str) -> OutcomeRow:
    if probe is None:
        return {}
    return {
        "probe_answer": key_of(probe.text, scorer),
        "probe_tokens": probe.tokens,
        "probe_logprob": probe.mean_logprob,
        "probe_min_logprob": probe.min_logprob,
        "end_logprob": probe.end_logprob,
    }


def _source(question: Question) -> str:
    if question.scorer == JUDGE:
        return LabelSource.JUDGE.value
    return LabelSource.AGREEMENT.value if question.scorer in AGREEMENT else LabelSource.VERIFIER.value


def _total(answer: Answer) -> int | None:
    if answer.thinking_tokens is None or answer.answer_tokens is None:
        return None
    return answer.thinking_tokens + answer.answer_tokens
