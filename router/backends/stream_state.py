"""What a chat stream has brought: its events, how much was thought by whose count, and how it ended."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from router.backends import logprobs
from router.backends.answer_text import AnswerText
from router.backends.counting import MARGIN, Count, Tally
from router.backends.deltas import CallReader, texts
from router.backends.dialects import Dialect
from router.backends.endings import ending
from router.backends.engine_counts import EngineCounts
from router.backends.failures import MappedErrors
from router.backends.http import Chunk, expect_few
from router.backends.limits import PIECES_A_TOKEN, SPARE_PIECES, Gate, ReadLimits
from router.backends.markers import AnswerReader, CueReader, Markers, Said
from router.backends.text import BLANK, SurrogateJoiner
from router.domain import (
    SLACK,
    Completion,
    ContentDelta,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Sampling,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)
from router.errors import BackendError

Events = list[GenerationEvent]
NO_CALL = ToolCall("", "", "")

LONG_ANSWER = 256
"""Characters of an answer before which a model that thinks would have thought."""


class StreamState:
    """Reads a chat stream: choice 0 alone, within its limits.

    Attributes:
        counts: what the engine says of tokens.
        enough: the rest of the stream is not read.
    """

    def __init__(
        self,
        dialect: Dialect,
        markers: Markers | None = None,
        limits: ReadLimits | None = None,
        answer: AnswerText | None = None,
    ) -> None:
        self._early = dialect.early
        self._limits = limits or ReadLimits()
        self._most_pieces = PIECES_A_TOKEN * self._limits.total + SPARE_PIECES
        self.counts = EngineCounts(dialect, self._limits.budget)
        markers = markers or Markers()
        self._end = markers.end
        self._text = answer or AnswerText(Sampling())
        self._reader = AnswerReader(markers, self._limits.hold)
        self._cue = CueReader(markers.cue if dialect.cue_field else None)
        self._calls = CallReader()
        self._thought, self._content, self._refusal = SurrogateJoiner(), SurrogateJoiner(), SurrogateJoiner()
        self._thinking, self._answering = Gate(self._limits.thought), Gate(self._limits.answer)
        self._tally = Tally()
        self._texts: list[str] = []
        self._finish: Any = None
        self._declined = self._called = False
        self.enough = False
        self._blank: list[str] = []

    @property
    def text(self) -> str:
        """The text of the thought so far."""
        return "".join(self._texts)

    @property
    def count(self) -> Count:
        """Thinking tokens so far, and who counted them."""
        return self.counts.settled(self._tally, leaked=self._reader.leaked > 0)

    @property
    def answered(self) -> bool:
        """An answer, a refusal or a tool call has begun."""
        return self._reader.answered or self._declined or self._called

    @property
    def unanswered_thought(self) -> bool:
        """It thought, and nothing followed."""
        return self._tally.visible and not self.answered

    @property
    def plain(self) -> bool:
        """It answered at length, and no thought was seen."""
        return not self._tally.visible and self._answering.characters >= LONG_ANSWER

    @property
    def stopped(self) -> bool:
        """A stop string has ended the answer; the rest is not read."""
        return self._text.stopped

    @property
    def ended(self) -> bool:
        """The engine has said how it ended; only counts may follow."""
        return self._finish is not None

    @property
    def full(self) -> bool:
        """More has come than was asked for; the rest is not read."""
        thinking, answering, limits = self._thinking, self._answering, self._limits
        return (
            thinking.full
            or answering.full
            or thinking.pieces + answering.pieces > self._most_pieces
            or limits.exceeded(self.counts.thought_ids, self.counts.answer_ids, SLACK)
        )

    @property
    def finish(self) -> FinishReason:
        """How the stream ended. Raises BackendError where it had no end."""
        if self.stopped:
            return FinishReason.NATURAL
        if self.full:
            return FinishReason.TRUNCATED
        if self._finish is None:
            raise BackendError("backend: the stream ended early")
        reason = ending(self._finish)
        return FinishReason.REFUSED if self._declined and reason is FinishReason.NATURAL else reason

    def read(self, chunks: Iterable[Chunk], budget: int | None) -> tuple[Events, bool]:
        """The events in some chunks, and whether the thought has gone past the budget: then the rest is not read.

        Raises BackendError where a chunk is not of the API's shape.
        """
        events: Events = []
        over = False
        with MappedErrors():
            for chunk in chunks:
                self._take(chunk, events)
                over = self._over(budget)
                self.enough = over or self.full or self._text.stopped
                if self.enough:
                    break
        events += self._text.logprobs()
        return (events if len(events) < 2 else list(merged(events))), over

    def rest(self) -> Events:
        """What was held back until the end of the stream."""
        events: Events = []
        self._think(self._thought.rest(), events)
        self._pass([ReasoningDelta(held)] if (held := self._cue.rest()) else [], events)
        self._answer(self._content.rest(), events)
        self._pass(self._reader.rest(), events)
        events += [*self._text.rest(), *self._text.logprobs()]
        self._refuse(self._refusal.rest(), events)
        return list(merged([*events, *self._calls.rest()]))

    def completion(self, request: GenerationRequest) -> Completion:
        """The end of the stream. Raises BackendError where the stream had none."""
        finish, found, budget = self.finish, self.count, request.budget.tokens
        thought = found.tokens
        if thought is None and budget == 0:  # no thought arrived, so nobody counted one
            thought = 0
        prompt, total = self.counts.totals
        if finish is FinishReason.NATURAL and self._forced(thought, budget):
            finish = FinishReason.FORCED
        return Completion(
            finish,
            request.budget,
            Enforcement.HINT if thought is None or found.guessed else Enforcement.NATIVE,
            found.source,
            prompt_tokens=prompt,
            thinking_tokens=thought,
            answer_tokens=None if thought is None or total is None or total < thought else total - thought,
            reported_thinking_tokens=found.reported,
            counts_disagree=found.disagrees,
            violated=found.beyond(budget) if found.guessed or found.disagrees else None,
            stop=self._text.stop,
        )

    def _forced(self, thought: int | None, budget: int | None) -> bool:
        return self._cue.said or (thought is not None and budget is not None and thought >= budget - self._early)

    def _take(self, chunk: Chunk, events: Events) -> None:
        thinking = False
        for choice in expect_few(chunk.get("choices")):  # the last chunk has usage alone
            if choice.get("index"):
                self.counts.several = True
                continue
            self._finish = choice.get("finish_reason") or self._finish
            thoughts = len(self._texts)
            if delta := choice.get("delta"):
                self._delta(delta, logprobs.of_chat(choice) if choice.get("logprobs") else [], events)
            thinking = len(self._texts) > thoughts
            if ids := choice.get("token_ids"):
                self.counts.take_ids(ids, thinking, self._reader.waiting)
        self.counts.take(chunk, thinking, self._cue.begun)

    def _delta(self, delta: Mapping[str, Any], tokens: list[TokenLogprob], events: Events) -> None:
        thought, answer, refusal = texts(delta)
        if thought:
            self._reader.trust()
            self._think(self._thought.join(self._thinking.through(thought)), events)
        if answer:
            self._text.take(_last(tokens, answer) if thought else self._unmarked(tokens))
            self._answer(self._content.join(self._answering.through(answer)), events)
        if refusal:
            self._refuse(self._refusal.join(self._answering.through(refusal)), events)
        if "tool_calls" in delta or "function_call" in delta:
            self._call(delta, events)

    def _call(self, delta: Mapping[str, Any], events: Events) -> None:
        for call in self._calls.read(delta):
            self._pass(self._reader.rest(), events)
            events += self._text.rest()
            self._answering.through(call.call.name + call.call.arguments)
            self._called = self._called or call.call != NO_CALL
            events.append(call)

    def _think(self, thought: str, events: Events) -> None:
        if thought and (said := self._cue.read(thought)):
            self._pass([ReasoningDelta(said)], events)

    def _answer(self, content: str, events: Events) -> None:
        if content:
            leaked = self._reader.leaked
            self._pass(self._reader.read(content), events)
            if self._reader.leaked > leaked:  # it was passed on as an answer, and was none
                self._tally.add("x" * self._reader.leaked)

    def _refuse(self, refusal: str, events: Events) -> None:
        """A refusal begins with its first visible character; blank text alone is none."""
        if not self._declined and not refusal.strip(BLANK):
            self._blank.append(refusal)
        elif refusal:
            self._declined = True
            events.append(RefusalDelta("".join((*self._blank, refusal))))
            self._blank.clear()

    def _pass(self, said: Said, events: Events) -> None:
        for event in self._text.read(said):
            if type(event) is ReasoningDelta:
                self._texts.append(event.text)
                self._tally.add(event.text)
            events.append(event)

    def _unmarked(self, tokens: list[TokenLogprob]) -> list[TokenLogprob]:
        return [one for one in tokens if one.token != self._end]

    def _over(self, budget: int | None) -> bool:
        """More was thought than asked for, beyond what engines differ by in their counts; no answer has begun."""
        if budget is None or (self.counts.known <= budget + SLACK and self._tally.least // MARGIN <= budget + SLACK):
            return False
        return not (self.answered or self._reader.waiting)


def _last(tokens: list[TokenLogprob], text: str) -> list[TokenLogprob]:
    """The last tokens, as many as fit into a text: those before belong to a thought that came in the same delta."""
    left, kept = len(text), len(tokens)
    while kept and (left := left - len(tokens[kept - 1].token)) >= 0:
        kept -= 1
    return tokens[kept:]


def merged(events: Events) -> Iterator[GenerationEvent]:
    """Join neighbouring deltas of one kind: deltas that arrive together leave together."""
    for kind, run in groupby(events, type):
        if kind in (ReasoningDelta, ContentDelta, RefusalDelta):
            yield kind(
                "".join(event.text for event in run if not isinstance(event, Completion | ToolCallDelta | Logprobs))
            )
        else:
            yield from run
