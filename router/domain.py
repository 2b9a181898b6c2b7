"""The words of the field as frozen types. No I/O."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from router.stopping.evidence import Evidence
from router.stopping.rules import StoppingCertificate


class Role(Enum):
    """Who speaks in a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function, or a piece of one; `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        tool_calls: what an assistant called.
        tool_call_id: the call that a tool's turn answers.
        images: URLs.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that asks for an answer."""

    messages: tuple[Message, ...]

    @property
    def images(self) -> str | None:
        """The first field that holds images, None where there are none."""
        return next((f"messages[{i}].image_urls" for i, message in enumerate(self.messages) if message.images), None)

    @property
    def text(self) -> str:
        """The text that is scored: the last user message, or the last message if there is none."""
        for message in reversed(self.messages):
            if message.role is Role.USER:
                return message.content
        return self.messages[-1].content

    @classmethod
    def of(cls, text: str) -> "Prompt":
        """A single user message."""
        return cls((Message(Role.USER, text),))


@dataclass(frozen=True, slots=True)
class ReasoningBudget:
    """One rung: a cap in thinking tokens, or a named effort without a number (`tokens` is None)."""

    name: str
    tokens: int | None


@dataclass(frozen=True, slots=True)
class BudgetLadder:
    """The rungs a backend can run, cheapest first."""

    rungs: tuple[ReasoningBudget, ...]

    def __len__(self) -> int:
        return len(self.rungs)

    def __hash__(self) -> int:
        return hash((len(self.rungs), self.rungs[-1:]))  # every decision hashes its ladder, so the hash must be cheap

    def index(self, name: str) -> int | None:
        """Position of the rung called `name`, None where there is none."""
        return next((i for i, rung in enumerate(self.rungs) if rung.name == name), None)


DEFAULT_RUNG = "default"
"""Name of the engine's own default, which no ladder holds: the engine thinks as it does where nobody sets a budget."""

Forecast = tuple[float | None, ...]
"""Thinking tokens by rung; None for rungs whose token counts were not recorded in the training data."""


@dataclass(frozen=True, slots=True)
class Score:
    """The classifier's predictions for one prompt, by rung in ladder order.

    Attributes:
        quality: P(correct).
        mean: thinking tokens that a rung is expected to use; p50, p90 and p99 are their quantiles.
        far: the prompt is unlike those that were certified, so no prediction about it can be relied on.
    """

    quality: tuple[float, ...]
    mean: Forecast
    p50: Forecast
    p90: Forecast
    p99: Forecast
    far: bool = field(default=False, kw_only=True)

    @property
    def rungs(self) -> "Iterator[tuple[float, float | None, float | None, float | None, float | None]]":
        """The predictions rung by rung: quality, mean, p50, p90, p99."""
        return zip(self.quality, self.mean, self.p50, self.p90, self.p99, strict=True)


@dataclass(frozen=True, slots=True)
class MaxLoss:
    """Relative target: at most this much P(correct) below the top rung.

    Attributes:
        per_prompt: by each prompt's own forecast, not on average over prompts.
    """

    value: float
    per_prompt: bool = False


@dataclass(frozen=True, slots=True)
class MinQuality:
    """Absolute target: at least this P(correct)."""

    value: float


QualityTarget = MaxLoss | MinQuality

DEFAULT_MAX_LOSS = 0.02
"""The quality target wherever none is named: of requests, of plans and reports, of retraining."""


class OnUnmet(Enum):
    """What to do when no rung is predicted to meet the target."""

    TOP_RUNG = "top_rung"
    CHEAPEST_NEAR_BEST = "cheapest_near_best"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Certificate:
    """With probability 1 - delta over the calibration data, the policy at `threshold` loses at most alpha.

    Attributes:
        alpha: for a relative target, the largest mean loss against the top rung; for an absolute one, the largest
            share of wrong answers among the prompts predicted to meet it. 0..1.
        delta: probability that the statement is wrong, 0..1.
        threshold: for a relative target, the P(correct) that a further thinking token must buy; per prompt, the
            largest predicted loss accepted, below 0 where a gain is asked for; for an absolute target, the smallest
            P(correct) accepted.
        prompts: calibration prompts.
        rung: for a relative target, the position of the rung that every prompt gets; None = the threshold decides.
        tie: for a relative target, the P(correct) within which rungs are worth the same, so that the smallest is taken.
        agreement: for a relative target, alpha bounds the share of answers that differ from the top rung's, and with
            it the loss.
    """

    alpha: float
    delta: float
    threshold: float
    prompts: int
    rung: int | None = None
    tie: float = 0.0
    agreement: bool = False


class Rule(Enum):
    """What chooses: a rung by the text of the prompt, one rung for everybody, or the thought itself as it goes on."""

    TEXT = "text"
    FIXED = "fixed"
    STOPPING = "stopping"


class DecisionSource(Enum):
    """Where a decision came from."""

    CLASSIFIER = "classifier"
    CACHE = "cache"
    OVERRIDE = "override"
    PINNED = "pinned"
    EXPLORE = "explore"
    FALLBACK = "fallback"
    ENGINE_DEFAULT = "engine_default"


@dataclass(frozen=True, slots=True)
class RoutingOptions:
    """The routing options of a request. Tokens are thinking tokens, `max_latency` is in seconds.

    Attributes:
        target_relaxation: P(correct) by which the target was relaxed because the service is overloaded.
        latency_of_call: the request names no `max_latency`; it is the time that its call has left.
    """

    target: QualityTarget
    min_thinking_tokens: int = 0
    max_thinking_tokens: int | None = None
    max_latency: float | None = None
    on_unmet: OnUnmet = OnUnmet.TOP_RUNG
    rung: str | None = None
    conversation_id: str | None = None
    target_relaxation: float = 0.0
    latency_of_call: bool = False


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """One prompt to choose a budget for."""

    prompt: Prompt
    options: RoutingOptions
    tenant: str
    model: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The policy's pick: a position on the ladder, and what may be claimed for it.

    Attributes:
        meets_target: this prompt's own forecast meets the target. A certificate promises it on average over prompts.
        stopping: the rule that ends the thought on the way to the rung; None = it gets there unless it ends by itself.
        checkpoints: positions of the rungs at which a stopping rule looks at the answer, also where only the caller
            could do so.
    """

    index: int
    meets_target: bool
    certificate: Certificate | None
    reason: str
    stopping: StoppingCertificate | None = None
    checkpoints: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The choice for one request, as the caller and the outcome log get it.

    Attributes:
        backend: fingerprint of the engine that answers.
        propensities: the probability of each rung at the moment of choice.
        target_relaxation: P(correct) by which the target was relaxed because the service is overloaded.
    """

    id: str
    model: str
    backend: str
    ladder: BudgetLadder
    choice: Choice
    target: QualityTarget
    source: DecisionSource
    model_version: str
    score: Score | None
    propensities: tuple[float, ...]
    target_relaxation: float = 0.0

    @property
    def rung(self) -> ReasoningBudget:
        """The chosen rung."""
        return self.ladder.rungs[self.choice.index]

    @property
    def rule(self) -> Rule:
        """What chose the rung."""
        if self.choice.stopping is not None:
            return Rule.STOPPING
        proof = self.choice.certificate
        return Rule.FIXED if self.score is None or (proof is not None and proof.rung is not None) else Rule.TEXT

    @property
    def expected_thinking_tokens(self) -> float | None:
        """Thinking tokens forecast; under a stopping rule its mean over the calibration prompts. None = unknown."""
        if self.choice.stopping is not None:
            return self.choice.stopping.thinking_tokens
        return None if self.score is None else self.score.mean[self.choice.index]

    @property
    def predicted_quality(self) -> float | None:
        """P(correct) at the chosen rung; None if nothing was predicted."""
        return None if self.score is None else self.score.quality[self.choice.index]


class LoggedDecision(NamedTuple):
    """A decision as the outcome log keeps it.

    Attributes:
        prompt: None where the log keeps no texts.
        checkpoints: what a stopping rule has seen, without answers.
    """

    tenant: str
    decision: Decision
    prompt: Prompt | None
    checkpoints: "tuple[Checkpoint, ...]" = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits of a tenant: tokens a minute (thinking and answers), and generations under way."""

    tokens_per_minute: float = math.inf
    streams: float = math.inf


UNLIMITED = Quota()
DEFAULT_ANSWER_TOKENS = 1024

SLACK = 2
"""Thinking tokens by which the counts of engines may differ."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the backend samples tokens; temperature 0 is greedy, None is the engine's default."""

    temperature: float | None = 0.0
    max_answer_tokens: int = DEFAULT_ANSWER_TOKENS
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


TOOL_CHOICES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class Tools:
    """Functions on offer; `choice` is one of TOOL_CHOICES or the name of one."""

    offered: tuple[Tool, ...] = ()
    choice: str = "auto"


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request to a backend: think within min_thinking_tokens and the budget, then answer.

    Attributes:
        expected_tokens: forecast of thinking tokens, by which load is balanced.
        session: equal for requests that share a prefix, such as those of one conversation.
    """

    prompt: Prompt
    budget: ReasoningBudget
    min_thinking_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    expected_tokens: float = 0.0
    session: str | None = None
    tools: Tools = Tools()


class Enforcement(Enum):
    """How a budget is held."""

    NATIVE = "native"
    TWO_PHASE = "two_phase"
    HINT = "hint"


class FinishReason(Enum):
    """How a generation ended. Only the first three have a complete answer."""

    NATURAL = "natural"
    FORCED = "forced"
    CONVERGED = "converged"
    TRUNCATED = "truncated"
    FILTERED = "filtered"
    REFUSED = "refused"
    ABORTED = "aborted"
    NO_ANSWER = "no_answer"


class CountSource(Enum):
    """Who counted the thinking tokens: ROUTER counted token ids, ESTIMATE is the router's guess from the text."""

    ENGINE = "engine"
    ROUTER = "router"
    NONE = "none"
    ESTIMATE = "estimate"


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """A piece of the words with which the model declines."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the answer's tool call number `index`."""

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A cut of a thought at which a stopping rule has looked at the answer. It is no part of the reply.

    Attributes:
        rung: its name.
        answer: the beginning of the answer that was probed.
        probe_tokens: tokens of the probe; 0 where it failed.
        stops: the thought ends here.
    """

    rung: str
    answer: str
    probe_tokens: int
    evidence: Evidence
    stops: bool


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of a generation. Token counts are None where nobody reported them.

    Attributes:
        budget: the rung that gave the answer; above the chosen one if that gave none.
        attempts: how many there were; `thinking_tokens` are those of all of them, None if those of one are unknown.
        reported_thinking_tokens: the engine's own count for the last attempt, also where it is not used.
        counts_disagree: the engine's counts contradict what the router counted.
        violated: some attempt exceeded its budget; None = `thinking_tokens` says it.
        probe_tokens: tokens of the probes that are no part of the answer, and of what was thought meanwhile in vain.
        checkpoints: where a stopping rule has looked, in order.
    """

    finish: FinishReason
    budget: ReasoningBudget
    enforcement: Enforcement
    count_source: CountSource
    prompt_tokens: int | None
    thinking_tokens: int | None
    answer_tokens: int | None
    attempts: int = 1
    reported_thinking_tokens: int | None = None
    counts_disagree: bool = False
    violated: bool | None = None
    probe_tokens: int = 0
    checkpoints: tuple[Checkpoint, ...] = ()

    @property
    def spent_thinking(self) -> int | None:
        """Thinking tokens and those of the probes; None = unknown."""
        return None if self.thinking_tokens is None else self.thinking_tokens + self.probe_tokens

    @property
    def budget_violated(self) -> bool:
        """True if more thinking tokens were used than the budget allows, in any attempt."""
        if self.violated is not None:
            return self.violated
        if self.thinking_tokens is None or self.budget.tokens is None:
            return False
        return self.thinking_tokens > self.budget.tokens


GenerationEvent = ReasoningDelta | ContentDelta | RefusalDelta | ToolCallDelta | Completion
ServedEvent = GenerationEvent | Checkpoint


class LabelSource(Enum):
    """Who judged the answer."""

    VERIFIER = "verifier"
    JUDGE = "judge"
    USER = "user"
    AGREEMENT = "agreement"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How correct (0..1) the answer to an earlier decision was. A tenant, if named, must own the decision."""

    decision_id: str
    correct: float
    label_source: LabelSource
    tenant: str | None = None
