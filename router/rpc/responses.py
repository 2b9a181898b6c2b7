"""Domain types -> protocol messages."""

from router._gen import budget_router_pb2 as pb
from router.domain import (
    BudgetLadder,
    Checkpoint,
    Completion,
    ContentDelta,
    Decision,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    ServedEvent,
    ToolCallDelta,
)
from router.routing import reasons
from router.rpc import decisions
from router.rpc.decisions import DELIMITED, varint
from router.rpc.enums import COUNT_SOURCES, ENFORCEMENTS, FINISH_REASONS
from router.stopping.rules import StoppingCertificate

DECISION, REASONING, CONTENT, REFUSAL = (
    varint(pb.GenerateResponse.DESCRIPTOR.fields_by_name[name].number << 3 | DELIMITED)
    for name in ("decision", "reasoning", "content", "refusal")
)
"""What stands before the length of a decision or of a delta's text, on the wire."""


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


def event(value: Decision | ServedEvent) -> bytes:
    """One event of a stream as the caller gets it, on the wire."""
    match value:
        case ReasoningDelta(text):  # nearly all events are deltas: no message is made for them
            return _field(REASONING, text.encode())
        case ContentDelta(text):
            return _field(CONTENT, text.encode())
        case RefusalDelta(text):
            return _field(REFUSAL, text.encode())
        case Decision():
            return _field(DECISION, decisions.encoded(value))
        case _:
            return _message(value).SerializeToString()


def _field(beginning: bytes, data: bytes) -> bytes:
    return beginning + varint(len(data)) + data


def _message(value: ToolCallDelta | Logprobs | Checkpoint | Completion) -> pb.GenerateResponse:
    match value:
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
