"""A request to a backend, and the events that answer it."""

from dataclasses import dataclass, field
from enum import Enum

from router.domain.conversation import Prompt, ToolCall, Tools
from router.domain.ladder import ReasoningBudget
from router.domain.sampling import Sampling
from router.stopping.evidence import Evidence

SLACK = 2
"""Thinking tokens by which the counts of engines may differ."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request to a backend: think within min_thinking_tokens and the budget, then answer.

    Attributes:
        expected_tokens: forecast of thinking tokens, by which load is balanced.
        session: equal for requests that share a prefix, such as those of one conversation.
        engine: the replica that has the prefix, by name, as `Completion.engine` says it; "" = any may answer.
    """

    prompt: Prompt
    budget: ReasoningBudget
    min_thinking_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    expected_tokens: float = 0.0
    session: str | None = None
    tools: Tools = field(default_factory=Tools)
    engine: str = ""


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
class TokenLogprob:
    """A token of the answer, and its log-probability, at most 0.

    Attributes:
        top: the likeliest tokens at its place, likeliest first, each with its log-probability.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities of the tokens of the answer that has just been passed on."""

    tokens: tuple[TokenLogprob, ...]


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
        stop: the stop string before which the answer ends; None = it does not end by one.
        engine: name of the replica that answered; "" where there are none.
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
    stop: str | None = None
    engine: str = ""

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


GenerationEvent = ReasoningDelta | ContentDelta | RefusalDelta | ToolCallDelta | Logprobs | Completion

ServedEvent = GenerationEvent | Checkpoint
