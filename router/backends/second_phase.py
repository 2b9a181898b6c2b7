"""The answer behind a thought that is over, as the second of two phases reads it."""

from router.backends.answer_text import AnswerText
from router.backends.completions import Piece
from router.backends.endings import ending
from router.backends.limits import Gate
from router.backends.markers import AnswerReader, Markers
from router.backends.stream_state import merged
from router.backends.text import SurrogateJoiner
from router.backends.thought import Thought
from router.domain import (
    SLACK,
    Completion,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
)
from router.errors import BackendError


class AnswerPhase:
    """Reads an answer, and makes the completion of both phases.

    Attributes:
        drawn: tokens that the engine drew; 0 where it sends no ids.
        logprobs: their log-probabilities, where they were asked for.
    """

    def __init__(self, request: GenerationRequest, thought: Thought, markers: Markers) -> None:
        self._request = request
        self._thought = thought
        self._reader = AnswerReader(markers)
        self._reader.trust()
        self._text = AnswerText.of(request)
        self._joiner = SurrogateJoiner()
        self._gate = Gate(request.sampling.max_answer_tokens)
        self._finish: FinishReason | None = thought.failed
        self.drawn = self._thought_again = 0
        self.logprobs: list[float] = []

    @property
    def ended(self) -> bool:
        """The engine has said how it ended."""
        return self._finish is not None

    @property
    def over(self) -> bool:
        """The rest is not read."""
        return self.full or self._text.stopped

    @property
    def full(self) -> bool:
        """More has come than was asked for; the rest is not read."""
        return self._gate.full or self.drawn > self._request.sampling.max_answer_tokens + SLACK

    def read(self, pieces: list[Piece]) -> list[GenerationEvent]:
        """The events in some pieces."""
        said: list[GenerationEvent] = []
        for piece in pieces:
            if piece.finish is not None:
                self._finish = ending(piece.finish)
            self._text.take(piece.logprobs)
            new = self._reader.read(self._joiner.join(self._gate.through(piece.text))) if piece.text else []
            again = any(type(event) is ReasoningDelta for event in new)
            self.drawn += len(piece.ids)
            self.logprobs += [one.logprob for one in piece.logprobs]
            self._thought_again += len(piece.ids) if again else 0
            said += self._text.read(new)
            if self._text.stopped:
                break
        return [*merged(said), *self._text.logprobs()]

    def rest(self) -> list[GenerationEvent]:
        """What was held back until the end of the stream."""
        held = self._joiner.rest()
        last = [*(self._reader.read(held) if held else []), *self._reader.rest()]
        return [*merged([*self._text.read(last), *self._text.rest()]), *self._text.logprobs()]

    def completion(self) -> Completion:
        """The end of both phases. Raises BackendError where the stream had none."""
        if self._finish is None and not self.over:  # a proxy or a crash cut it: half an answer is not an answer
            raise BackendError("backend: the stream ended early")
        finish = FinishReason.TRUNCATED if self.full or self._finish is None else self._finish
        if self._text.stopped:
            finish = FinishReason.NATURAL
        if finish is FinishReason.NATURAL and not self._thought.natural:
            finish = FinishReason.FORCED
        budget, known = self._request.budget, self._thought.count
        used = self._thought.used + self._thought_again
        doubtful = known is not None and (known.guessed or known.disagrees)
        return Completion(
            finish,
            budget,
            Enforcement.TWO_PHASE,
            CountSource.ROUTER if known is None or not known.guessed else known.source,
            prompt_tokens=len(self._thought.prompt),
            thinking_tokens=used,
            answer_tokens=self.drawn - self._thought_again if self.drawn or not self._gate.characters else None,
            reported_thinking_tokens=None if known is None else known.reported,
            counts_disagree=known is not None and known.disagrees,
            stop=self._text.stop,
            violated=known.beyond(budget.tokens) if known is not None and doubtful else None,
        )
