"""One generation: everything that belongs to it, from its decision to its completion."""

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial

from router.answer_keys import answer_key
from router.backends.attempts import Attempts
from router.backends.counting import estimate
from router.domain import (
    Checkpoint,
    Completion,
    ContentDelta,
    Decision,
    DecisionSource,
    GenerationEvent,
    GenerationRequest,
    RouteRequest,
    Sampling,
    ServedEvent,
    Tools,
)
from router.ports import Observer
from router.routing.climber import StoppingClimber, rest
from router.routing.served_model import ServedModel

ASSUMED_THINKING_TOKENS = 2_048
"""Thinking tokens that admission and quotas count for a thought which nothing forecasts and no cap bounds."""


class Generation:
    """A request at the model that answers it.

    Args:
        began: `time.perf_counter()` when the model was chosen.

    Attributes:
        expected_tokens: thinking tokens forecast (or assumed) at the chosen rung, those of probes where a rule stops
            within the thought, and those of a usual answer.
        first_token_seconds: from `began` to the first event; 0 before it.
        used_tokens: thinking and answer tokens to charge for: 0 before the first event, then the forecast, and what
            was counted in all attempts once the completion says it.
    """

    def __init__(
        self,
        served: ServedModel,
        request: RouteRequest,
        decision: Decision,
        sampling: Sampling,
        tools: Tools,
        began: float,
    ) -> None:
        self.served = served
        self.request = request
        self.decision = decision
        self.sampling = sampling
        self.tools = tools
        self._climber: StoppingClimber | None = None
        self.first_token_seconds = 0.0
        self.used_tokens = 0.0
        self._began = began
        rule = decision.choice.stopping
        self._expected_thinking = (
            self._thinking_tokens(decision.choice.index) if rule is None else rule.thinking_tokens + rule.probe_tokens
        )
        self.expected_tokens = self._expected_thinking + served.policy.latency.answer_tokens
        begun = request.prompt.begun
        self._attempts = Attempts(begun is not None and bool(begun.content.strip()))
        self._answer: list[str] = []

    @property
    def completion(self) -> Completion | None:
        """The last event, once it is there."""
        return self._attempts.completion

    @property
    def patience(self) -> float | None:
        """Seconds that the request may wait for its turn and still meet its caller's deadline; None without one."""
        longest = self.request.options.max_latency
        if longest is None:
            return None
        # A number that is merely assumed must not refuse a request: it may wait as long as its deadline lets it.
        forecast = 0.0 if self._unforeseen else self.served.policy.latency.seconds(self._expected_thinking)
        return max(longest - forecast - self.seconds, 0.0)

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return time.perf_counter() - self._began

    @property
    def comparable(self) -> bool:
        """Its answer can be compared with another one: neither tool calls nor parts of answers can."""
        return not self.tools.offered and self.request.prompt.begun is None

    @property
    def answer(self) -> str:
        """The text of the answer so far."""
        return "".join(self._answer)

    def attempts(self) -> Iterator[GenerationRequest]:
        """What to ask the backend for: the chosen rung, then, if that gave no answer, the next rung allowed.

        The policy's bounds hold for the second attempt as well: it may not break the caller's ceiling. Where no longer
        rung is allowed the chosen one is tried again.
        """
        options, chosen = self.request.options, self.decision.choice.index
        # The engine's own default is no rung of the ladder, so no rung is known to be longer.
        longer = [] if self._unforeseen else [i for i in self.served.policy.within_bounds(options) if i > chosen]
        return map(self._asked, self._attempts.over(chosen, (longer or [chosen])[0]))

    def events(self, asked: GenerationRequest, observer: Observer) -> AsyncGenerator[ServedEvent]:
        """What the backend makes of one attempt. The first one may stop within the thought."""
        rule, backend, climber = self.decision.choice.stopping, self.served.backend, self.served.climber
        if rule is None or self._attempts.number > 1 or climber is None:
            return backend.stream(asked)
        if (climb := climber.climb(asked)) is None:
            return backend.stream(asked)
        key, served = partial(answer_key, kind=self.served.bundle.manifest.answers), self.served
        self._climber = StoppingClimber(
            climb,
            self.decision,
            rule.rule,
            key,
            observer,
            served.lookahead,
            # The probe has no log-probabilities to pass on, so that an answer with them is drawn again.
            greedy=climb.greedy and not asked.sampling.logprobs,
            ahead=served.ahead,
        )
        return self._climber.stream()

    @property
    def rest(self) -> Callable[[], AsyncGenerator[GenerationEvent]] | None:
        """What goes on with the thought from where a rule has stopped it; None where none has."""
        end = self.completion
        stopped = end is not None and end.attempts == 1 and end.checkpoints and end.checkpoints[-1].stops
        return partial(rest, self._climber.cut) if stopped and self._climber is not None else None

    def take(self, event: ServedEvent) -> ServedEvent | None:
        """The event to pass on; None for the completion of an attempt that gave no answer."""
        if isinstance(event, Checkpoint):
            return event
        passed = self._attempts.take(event)
        if type(event) is ContentDelta:
            self._answer.append(event.text)
        if type(passed) is Completion and passed.thinking_tokens is not None:
            answered = estimate(self.answer) if passed.answer_tokens is None else passed.answer_tokens
            self._passed(float(passed.thinking_tokens + passed.probe_tokens + answered))
        elif passed is not None:
            self._passed(self.expected_tokens)
        return passed

    @property
    def _unforeseen(self) -> bool:
        """The engine's own default is served, of which nothing is known."""
        return self.decision.source is DecisionSource.ENGINE_DEFAULT

    def _passed(self, used_tokens: float) -> None:
        self.used_tokens = used_tokens
        self.first_token_seconds = self.first_token_seconds or self.seconds

    def _asked(self, index: int) -> GenerationRequest:
        options = self.request.options
        return GenerationRequest(
            self.request.prompt,
            self.decision.ladder.rungs[index],
            options.min_thinking_tokens,
            self.sampling,
            self._expected_thinking if self._attempts.number == 1 else self._thinking_tokens(index),
            self.request.session,
            self.tools,
        )

    def _thinking_tokens(self, index: int) -> float:
        """Thinking tokens forecast at a rung; its cap where there is no forecast, and without a cap what is assumed."""
        score, rung = self.decision.score, self.decision.ladder.rungs[index]
        mean = None if score is None else score.mean[index]
        if mean is not None:
            return mean
        return float(ASSUMED_THINKING_TOKENS if rung.tokens is None else rung.tokens)
