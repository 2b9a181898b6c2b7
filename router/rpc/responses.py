"""Domain types -> protocol messages."""

from collections.abc import Sequence

from router._gen import budget_router_pb2 as pb
from router.domain import (
    BudgetLadder,
    Certificate,
    Checkpoint,
    Completion,
    ContentDelta,
    Decision,
    Logprobs,
    MaxLoss,
    ReasoningBudget,
    ReasoningDelta,
    RefusalDelta,
    Score,
    ServedEvent,
    ToolCallDelta,
)
from router.routing import reasons
from router.rpc.enums import COUNT_SOURCES, DECISION_SOURCES, ENFORCEMENTS, ESCALATIONS, FINISH_REASONS, RULES
from router.stopping.rules import StoppingCertificate
from router.turn import Turn

DECISION_STEPS = 40
"""Steps of a `Turn` to convert a decision with its forecasts."""


def decision(value: Decision) -> pb.Decision:
    """A decision as the caller gets it."""
    message = pb.Decision(
        decision_id=value.id,
        rung=value.rung.name,
        budget_tokens=value.rung.tokens,
        predicted_quality=value.predicted_quality,
        meets_target=value.choice.meets_target,
        certified=value.choice.certificate is not None,
        reason=value.choice.reason,
        source=DECISION_SOURCES.numbers[value.source],
        model=value.model,
        model_version=value.model_version,
        relaxed=value.target_relaxation,
        rule=RULES.numbers[value.rule],
        checkpoints=[value.ladder.rungs[i].name for i in value.choice.checkpoints],
        expected_thinking_tokens=value.expected_thinking_tokens,
        truncated_characters=value.truncated_characters,
    )
    if value.score is not None:
        _add_forecasts(message, value.ladder.rungs, value.score)
    if isinstance(value.target, MaxLoss):
        message.max_loss, message.per_prompt_target = value.target.value, value.target.per_prompt
    else:
        message.min_quality = value.target.value
    if value.escalation is not None:
        message.escalation = ESCALATIONS.numbers[value.escalation]
    if value.choice.certificate is not None:
        message.certificate.CopyFrom(certificate(value.choice.certificate, value.ladder))
    return message


async def decisions(values: Sequence[Decision]) -> list[pb.Decision]:
    """The decisions of a batch as the caller gets them, in order."""
    turn, messages = Turn(), []
    for value in values:
        messages.append(decision(value))
        await turn.spend(DECISION_STEPS)
    return messages


def _add_forecasts(message: pb.Decision, rungs: Sequence[ReasoningBudget], score: Score) -> None:
    """Add the forecast of every rung; one whose tokens are unknown has only its quality."""
    # Setting field by field takes half the time of a constructor with all fields.
    add = message.forecasts.add
    for rung, (quality, mean, p50, p90, p99) in zip(rungs, score.rungs, strict=True):
        forecast = add()
        forecast.rung, forecast.quality = rung.name, quality
        if rung.tokens is not None:
            forecast.budget_tokens = rung.tokens
        if mean is None or p50 is None or p90 is None or p99 is None:
            forecast.thinking_tokens_unknown = True
            continue
        forecast.mean_thinking_tokens, forecast.p50_thinking_tokens = mean, p50
        forecast.p90_thinking_tokens, forecast.p99_thinking_tokens = p90, p99


def certificate(value: Certificate, ladder: BudgetLadder) -> pb.Certificate:
    """A certificate as the caller gets it; the ladder is that of its bundle."""
    fixed = "" if value.rung is None else ladder.rungs[value.rung].name
    return pb.Certificate(
        alpha=value.alpha, delta=value.delta, threshold=value.threshold, prompts=value.prompts, rung=fixed
    )


def stopping(value: StoppingCertificate, ladder: BudgetLadder) -> pb.StoppingCertificate:
    """The certificate of a rule that stops within the thought, as an operator gets it."""
    return pb.StoppingCertificate(
        alpha=value.alpha,
        delta=value.delta,
        prompts=value.prompts,
        rule=reasons.stopping(value.rule, ladder),
        thinking_tokens=value.thinking_tokens,
        probe_tokens=value.probe_tokens,
    )


def event(value: Decision | ServedEvent) -> pb.GenerateResponse:
    """One event of a stream as the caller gets it."""
    match value:
        case Decision():
            return pb.GenerateResponse(decision=decision(value))
        case ReasoningDelta(text):
            return pb.GenerateResponse(reasoning=text)
        case ContentDelta(text):
            return pb.GenerateResponse(content=text)
        case RefusalDelta(text):
            return pb.GenerateResponse(refusal=text)
        case ToolCallDelta(index, call):
            piece = pb.ToolCall(id=call.id, name=call.name, arguments=call.arguments)
            return pb.GenerateResponse(tool_call=pb.ToolCallDelta(index=index, call=piece))
        case Logprobs():
            return pb.GenerateResponse(logprobs=logprobs(value))
        case Checkpoint():
            return pb.GenerateResponse(checkpoint=checkpoint(value))
        case Completion():
            return pb.GenerateResponse(completion=completion(value))


def logprobs(value: Logprobs) -> pb.Logprobs:
    """Log-probabilities of tokens of the answer as the caller gets them."""
    return pb.Logprobs(
        tokens=[
            pb.TokenLogprob(
                token=one.token,
                logprob=one.logprob,
                top=[pb.LikelyToken(token=token, logprob=logprob) for token, logprob in one.top],
            )
            for one in value.tokens
        ]
    )


def checkpoint(value: Checkpoint) -> pb.Checkpoint:
    """What a stopping rule has seen at a rung, as the caller gets it."""
    seen = value.evidence
    return pb.Checkpoint(
        rung=value.rung,
        thinking_tokens=seen.tokens,
        answer=value.answer,
        probe_tokens=value.probe_tokens,
        stood=seen.stood,
        mean_logprob=seen.mean_logprob,
        stops=value.stops,
    )


def completion(value: Completion) -> pb.Completion:
    """The end of a stream as the caller gets it."""
    return pb.Completion(
        finish_reason=FINISH_REASONS.numbers[value.finish],
        prompt_tokens=value.prompt_tokens,
        thinking_tokens=value.thinking_tokens,
        answer_tokens=value.answer_tokens,
        count_source=COUNT_SOURCES.numbers[value.count_source],
        enforcement=ENFORCEMENTS.numbers[value.enforcement],
        budget_tokens=value.budget.tokens,
        budget_violated=value.budget_violated,
        rung=value.budget.name,
        attempts=value.attempts,
        reported_thinking_tokens=value.reported_thinking_tokens,
        counts_disagree=value.counts_disagree,
        probe_tokens=value.probe_tokens,
        stop=value.stop,
    )
