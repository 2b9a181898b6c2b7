"""The service's answers as frozen dataclasses, which `match` takes apart.

They mirror the messages of the proto file, field by field under the same names. An optional field that is absent is
None; an enum is a lower-case word. `mirror` converts them.
"""

from dataclasses import dataclass
from typing import TypeAlias

from router.client.requests import ToolCall


@dataclass(frozen=True, slots=True)
class RungForecast:
    """The forecast for one rung: P(correct), 0..1, and the thinking tokens that it uses, as mean and quantiles.

    Attributes:
        budget_tokens: cap in thinking tokens; None = no cap, or not a number.
        thinking_tokens_unknown: the training data has no counts for this rung; the four numbers are 0 and say nothing.
    """

    rung: str
    budget_tokens: int | None
    quality: float
    mean_thinking_tokens: float
    p50_thinking_tokens: float
    p90_thinking_tokens: float
    p99_thinking_tokens: float
    thinking_tokens_unknown: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """With probability 1 - `delta` over the calibration data, the policy at `threshold` loses at most `alpha`.

    Attributes:
        prompts: calibration prompts.
        rung: the rung that every prompt gets; "" = the rung is chosen for each prompt.
    """

    alpha: float
    delta: float
    threshold: float
    prompts: int
    rung: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen rung, and why.

    Attributes:
        decision_id: for `report_outcome` and `explain`.
        budget_tokens: cap in thinking tokens; None = no cap, or not a number.
        predicted_quality: P(correct) at the chosen rung, 0..1; None where nothing was predicted.
        max_loss: the target in force; `min_quality` is None then, and the other way round.
        meets_target: this prompt's own forecast meets the target at the chosen rung. What is certified is certified on
            average over prompts, so a certified decision may miss `max_loss`, unless `per_prompt_target` is true.
        certified: a certificate stands behind it.
        source: "classifier", "cache", "override", "pinned", "explore", "fallback", "engine_default" or "escalated".
        model_version: digest of the model bundle.
        forecasts: one for each rung, cheapest first; empty where nothing was predicted.
        model: the served model that the decision is about.
        relaxed: P(correct) by which the target was relaxed because the service was overloaded.
        per_prompt_target: `max_loss` is about this prompt's own forecast.
        rule: what chose: "text", "fixed", or "stopping": the thought ends by itself, or where its answer stands.
        checkpoints: rungs at which a certified rule looks at the answer; for `decide`, where a caller could.
        expected_thinking_tokens: forecast; None = unknown.
        escalation: why the conversation went up with this request: "tool_failed", "repeated_call", "truncated" or
            "unlike"; None = it did not.
        truncated_characters: those of the conversation whose text was not scored, but counted: of earlier turns, of
            instructions, of tool results, and of a document around the question.
    """

    decision_id: str
    rung: str
    budget_tokens: int | None
    predicted_quality: float | None
    max_loss: float | None
    min_quality: float | None
    meets_target: bool
    certified: bool
    reason: str
    source: str
    model_version: str
    forecasts: tuple[RungForecast, ...]
    certificate: Certificate | None
    model: str
    relaxed: float
    per_prompt_target: bool = False
    rule: str = "text"
    checkpoints: tuple[str, ...] = ()
    expected_thinking_tokens: float | None = None
    escalation: str | None = None
    truncated_characters: int = 0


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A piece of the words with which the model declines."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the answer's tool call number `index`: id and name come first, arguments are to be joined."""

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class LikelyToken:
    """One of the likeliest tokens at a place, and its log-probability."""

    token: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the answer, its log-probability, and the likeliest tokens at its place, likeliest first."""

    token: str
    logprob: float
    top: tuple[LikelyToken, ...] = ()


@dataclass(frozen=True, slots=True)
class Logprobs:
    """The tokens that the content before it is made of."""

    tokens: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a stopping rule has seen at a rung. The answer there is no part of the reply.

    Attributes:
        thinking_tokens: up to there.
        answer: the beginning of the answer behind the cut.
        probe_tokens: tokens of that; 0 = the engine failed to give it.
        stood: how many checkpoints directly before had the same answer.
        mean_logprob: mean log-probability of its tokens; None = the engine does not say.
        stops: the thought ends here.
    """

    rung: str
    thinking_tokens: int
    answer: str
    probe_tokens: int
    stood: int
    mean_logprob: float | None
    stops: bool


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of a stream. Token counts are None where nobody counted.

    Attributes:
        finish_reason: "natural", "forced" (thinking was ended at the budget) or "converged" (a stopping rule ended it)
            with a complete answer; "truncated" (the answer was cut off), "filtered", "refused", "aborted" or
            "no_answer" without.
        thinking_tokens: those of all attempts.
        count_source: who counted thinking tokens: "engine", "router", "estimate" (from their text) or "none".
        enforcement: how the budget was held: "native", "two_phase" or "hint".
        budget_tokens: thinking tokens that were asked for; None = no cap.
        budget_violated: more were used.
        rung: the rung that gave the answer, above the chosen one where that ended without an answer.
        attempts: rungs tried.
        reported_thinking_tokens: the engine's own count for the last attempt, also where it is not used.
        counts_disagree: that count contradicts what the router counted.
        probe_tokens: tokens of the short answers that a stopping rule looked at, without those that are the answer.
        stop: the stop string before which the answer ends; None = it does not end by one.
    """

    finish_reason: str
    prompt_tokens: int | None
    thinking_tokens: int | None
    answer_tokens: int | None
    count_source: str
    enforcement: str
    budget_tokens: int | None
    budget_violated: bool
    rung: str
    attempts: int
    reported_thinking_tokens: int | None
    counts_disagree: bool
    probe_tokens: int = 0
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a budget was chosen: the decision, and sentences, most important first."""

    decision: Decision
    sentences: tuple[str, ...]


Event: TypeAlias = Decision | Reasoning | Content | Refusal | ToolCallDelta | Logprobs | Checkpoint | Completion
"""Events of a stream: a decision first, a completion last."""
