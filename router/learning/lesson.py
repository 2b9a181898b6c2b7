"""A request that was drawn to learn from, as it is served: its thought, its answer, and its end."""

from collections.abc import Callable

from router.domain import (
    DEFAULT_RUNG,
    BudgetLadder,
    Completion,
    ContentDelta,
    CountSource,
    Decision,
    DecisionSource,
    MaxLoss,
    OnUnmet,
    ReasoningDelta,
    Role,
    RouteRequest,
    RoutingOptions,
    Sampling,
    ServedEvent,
)
from router.learning.cuts import Answer
from router.ports import Climber


class Lesson:
    """Sees what the caller gets, and hands itself over once the caller has everything.

    Args:
        ladder: the rungs to learn about; the last one is served.
        ended: called with this lesson at the end, and with why it teaches nothing; "" = it may.

    Attributes:
        completion: the end; None before it.
    """

    def __init__(
        self,
        backend: Climber,
        request: RouteRequest,
        decision: Decision,
        sampling: Sampling,
        ladder: BudgetLadder,
        ended: "Callable[[Lesson, str], None]",
    ) -> None:
        self.backend = backend
        self.request = request
        self.decision = decision
        self.sampling = sampling
        self.ladder = ladder
        self.completion: Completion | None = None
        self._reasoning: list[str] = []
        self._answer: list[str] = []
        self._ended = ended

    @property
    def reasoning(self) -> str:
        """The text of the thought."""
        return "".join(self._reasoning)

    @property
    def served(self) -> Answer | None:
        """The answer; None where its caller has left before its end."""
        if self.completion is None:
            return None
        return Answer.of("".join(self._answer), self.completion, self.completion.thinking_tokens or 0)

    @property
    def engine(self) -> str:
        """The replica that answered, whose prefix cache holds the thought; "" where there are none."""
        return "" if self.completion is None else self.completion.engine

    @property
    def attempts(self) -> int:
        """How many there were; the thoughts of several are one text."""
        return 0 if self.completion is None else self.completion.attempts

    def take(self, event: ServedEvent) -> None:
        """See an event that the caller gets; never waits."""
        if isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, ContentDelta):
            self._answer.append(event.text)
        elif isinstance(event, Completion):
            self.completion = event

    def end(self, *, busy: bool) -> None:
        """The caller has the last event, or has left. Never waits.

        Args:
            busy: others wait for the engine.
        """
        self._ended(self, self._flaw() or ("busy" if busy else ""))

    def _flaw(self) -> str:
        """Why the thought cannot be cut: it has no end, or nobody counted it; "" = it can.

        Where an answer has begun, the thought is whole. Callers leave long answers more often than others: without
        them, these would be missing.
        """
        end = self.completion
        if end is None:
            return "" if self._answer else "unfinished"
        counted = end.thinking_tokens is not None and end.count_source is not CountSource.ESTIMATE
        return "" if counted and not end.counts_disagree else "uncounted"


def represents(decision: Decision, request: RouteRequest, max_loss: float) -> bool:
    """Whether the top rung is served for a reason that is neither the prompt's nor its caller's.

    Requests that a policy sends up are the hard ones: what they lose says nothing about the others. Callers with a
    stricter target than most have prompts of their own. A policy decides the first turn of a conversation alone.

    Args:
        max_loss: the target of callers that name none.
    """
    options = request.options
    if options.min_thinking_tokens:
        return False
    if decision.source is DecisionSource.ENGINE_DEFAULT:
        return not _later_turn(request) and decision.rung.name == DEFAULT_RUNG and decision.rung.tokens is None
    if decision.rung != decision.ladder.rungs[-1] or decision.choice.stopping is not None:
        return False
    return decision.teaches or (_uncertified(decision) and _unbounded(options, max_loss))


def _later_turn(request: RouteRequest) -> bool:
    """A turn of a conversation that keeps a rung once there are any."""
    answered = any(message.role is Role.ASSISTANT for message in request.prompt.messages)
    return answered and bool(request.options.conversation_id)


def _uncertified(decision: Decision) -> bool:
    scored = decision.source in (DecisionSource.CLASSIFIER, DecisionSource.CACHE) and decision.score is not None
    return scored and decision.choice.certificate is None and not decision.score.far  # type: ignore[union-attr]


def _unbounded(options: RoutingOptions, max_loss: float) -> bool:
    """Without a certificate everybody gets the top rung, unless an option has the score decide."""
    target = options.target
    if not isinstance(target, MaxLoss) or target.per_prompt or target.value < max_loss:
        return False
    if options.on_unmet is not OnUnmet.TOP_RUNG:
        return False
    patient = options.max_latency is None or options.latency_of_call
    return patient and options.max_thinking_tokens is None and options.reasoning_effort is None
