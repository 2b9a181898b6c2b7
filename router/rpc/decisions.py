"""Decisions -> protocol messages, by templates: most of a decision is the same in many others."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any

from router._gen import budget_router_pb2 as pb
from router.domain import (
    BudgetLadder,
    Certificate,
    Decision,
    DecisionSource,
    Escalation,
    MaxLoss,
    QualityTarget,
    ReasoningBudget,
    Rule,
    Score,
)
from router.rpc.enums import DECISION_SOURCES, ESCALATIONS, RULES
from router.turn import Turn

STEPS = 10
"""Steps of a `Turn` to convert a decision with its forecasts."""

FORECASTS = pb.Decision.DESCRIPTOR.fields_by_name["forecasts"].number
REPLIED = pb.DecideBatchResponse.DESCRIPTOR.fields_by_name["decisions"].number
"""The field of decisions in responses: of one in DecideResponse, of many in DecideBatchResponse."""

FIGURES = ("quality", "mean_thinking_tokens", "p50_thinking_tokens", "p90_thinking_tokens", "p99_thinking_tokens")
"""The fields of a forecast that differ from prompt to prompt, in the order of `Score.rungs`."""

DELIMITED, FIXED64 = 2, 1
"""Kinds of fields on the wire."""


def decision(value: Decision) -> pb.Decision:
    """A decision as the caller gets it."""
    return pb.Decision.FromString(encoded(value))


def reply(value: Decision) -> bytes:
    """The DecideResponse of a decision, on the wire."""
    data = encoded(value)
    return _beginning(len(data)) + data


async def batch(values: Sequence[Decision]) -> bytes:
    """The DecideBatchResponse of decisions, in order, on the wire."""
    turn, replies = Turn(), []
    for value in values:
        replies.append(reply(value))
        await turn.spend(STEPS)
    return b"".join(replies)


def certificate(value: Certificate, ladder: BudgetLadder) -> pb.Certificate:
    """A certificate as the caller gets it; the ladder is that of its bundle."""
    fixed = "" if value.rung is None else ladder.rungs[value.rung].name
    return pb.Certificate(
        alpha=value.alpha, delta=value.delta, threshold=value.threshold, prompts=value.prompts, rung=fixed
    )


def encoded(value: Decision) -> bytes:
    """A decision on the wire."""
    choice = value.choice
    shared = _shared(
        value.ladder,
        choice.index,
        choice.meets_target,
        choice.certificate,
        choice.checkpoints,
        value.source,
        value.rule,
        value.target,
        value.target_relaxation,
        value.escalation,
        value.model,
        value.model_version,
    )
    own = pb.Decision(
        decision_id=value.id,
        reason=choice.reason,
        predicted_quality=value.predicted_quality,
        expected_thinking_tokens=value.expected_thinking_tokens,
        truncated_characters=value.truncated_characters,
    ).SerializeToString()
    return shared + own if value.score is None else shared + own + _forecasts(value.ladder, value.score)


@lru_cache(1024)
def _shared(
    ladder: BudgetLadder,
    index: int,
    meets_target: bool,
    proof: Certificate | None,
    checkpoints: tuple[int, ...],
    source: DecisionSource,
    rule: Rule,
    target: QualityTarget,
    relaxed: float,
    escalation: Escalation | None,
    model: str,
    model_version: str,
) -> bytes:
    """The fields that many decisions share, on the wire."""
    rung = ladder.rungs[index]
    message = pb.Decision(
        rung=rung.name,
        budget_tokens=rung.tokens,
        meets_target=meets_target,
        certified=proof is not None,
        source=DECISION_SOURCES.numbers[source],
        model=model,
        model_version=model_version,
        relaxed=relaxed,
        rule=RULES.numbers[rule],
        checkpoints=[ladder.rungs[i].name for i in checkpoints],
        escalation=None if escalation is None else ESCALATIONS.numbers[escalation],
        certificate=None if proof is None else certificate(proof, ladder),
    )
    if isinstance(target, MaxLoss):
        message.max_loss, message.per_prompt_target = target.value, target.per_prompt
    else:
        message.min_quality = target.value
    return message.SerializeToString()


def _forecasts(ladder: BudgetLadder, score: Score) -> bytes:
    """The forecast of every rung, on the wire; one whose tokens are unknown has only its quality."""
    columns = score.quality, score.mean, score.p50, score.p90, score.p99
    if None in (*score.mean, *score.p50, *score.p90, *score.p99):
        return pb.Decision(forecasts=map(_forecast, ladder.rungs, score.rungs)).SerializeToString()
    pack, arguments = _template(ladder)
    values: list[Any] = arguments.copy()
    for place, column in enumerate(columns):
        values[2 * place + 1 :: 2 * len(FIGURES)] = column
    return pack(*values)


@lru_cache(16)
def _template(ladder: BudgetLadder) -> tuple[Callable[..., bytes], list[bytes | float]]:
    """What packs the forecasts of a ladder, and its arguments: constant bytes, each before the place of a figure."""
    tags = [varint(pb.RungForecast.DESCRIPTOR.fields_by_name[name].number << 3 | FIXED64) for name in FIGURES]
    constants: list[bytes] = []
    for rung in ladder.rungs:
        named = pb.RungForecast(rung=rung.name, budget_tokens=rung.tokens).SerializeToString()
        size = len(named) + sum(len(tag) + 8 for tag in tags)
        beginning = varint(FORECASTS << 3 | DELIMITED) + varint(size) + named
        constants += [beginning + tags[0], *tags[1:]]
    packed = Struct("<" + "".join(f"{len(constant)}sd" for constant in constants))
    return packed.pack, [argument for constant in constants for argument in (constant, 0.0)]


def _forecast(rung: ReasoningBudget, figures: Sequence[float | None]) -> pb.RungForecast:
    """The forecast of one rung, field by field."""
    unknown = None in figures
    known = figures[:1] if unknown else figures
    named = dict(zip(FIGURES, known, strict=False))
    return pb.RungForecast(rung=rung.name, budget_tokens=rung.tokens, thinking_tokens_unknown=unknown, **named)


@lru_cache(4096)
def _beginning(size: int) -> bytes:
    """What stands before a decision of so many bytes in a response."""
    return varint(REPLIED << 3 | DELIMITED) + varint(size)


def varint(value: int) -> bytes:
    """A number of at least 0 on the wire."""
    low, more = value & 127, value >> 7
    return bytes([low | 128]) + varint(more) if more else bytes([low])
