"""The pocket reasoner: a very small reasoning model that runs inside the process, with ONNX Runtime.

It is no assistant. It exists so that budgets, quality curves and outcomes are real without a GPU or an engine.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from copy import copy
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np

from router.backends.answer_text import AnswerText
from router.backends.pocket_model import END, END_THINK, WINDOW, PocketModel, Run
from router.backends.request_fields import BEGUN, BEGUN_BARE, FLOOR, Taken, check
from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningBudget,
    ReasoningDelta,
    TokenLogprob,
)
from router.errors import BackendError, InvalidRequest
from router.stopping.evidence import LEAST_LOGPROB, Probe, probed

TAKEN: Taken = frozenset(
    {"temperature", "seed", "top_p", "top_k", "min_p", "stop", "logprobs", FLOOR, BEGUN, BEGUN_BARE}
)
"""Fields of a request that the embedded model takes."""

LONGEST_PROMPT = 16 * WINDOW
"""Characters beyond which a prompt is refused before it is read as tokens: most of the model's have one character."""

A = TypeVar("A")
T = TypeVar("T")


class InThread(Protocol):
    """Computes on a thread."""

    def __call__(self, function: Callable[[A], T], argument: A) -> Awaitable[T]: ...


class PocketBackend:
    """Holds budgets to the token: at the cap it inserts the end marker, below the floor it bans the marker."""

    enforcement = Enforcement.NATIVE
    climbs = True

    def __init__(self, model: PocketModel, threads: int = 1) -> None:
        self._model = model
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pocket")
        self._markers = model.token(END), model.token(END_THINK)

    async def check_ready(self) -> None:
        """Returns at once: the model is in the process."""

    async def ready(self) -> bool:
        """Always true: the model runs in this process."""
        return True

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    def climb(self, request: GenerationRequest) -> "PocketClimb":
        """A thought that is had step by step. Raises InvalidRequest."""
        return PocketClimb(self._model, self._markers, request, self._in_thread)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Deltas token by token, then the completion. Raises InvalidRequest, BackendError."""
        climb = self.climb(request)
        async with aclosing(climb.think(None)) as deltas:
            async for delta in deltas:
                yield delta
        async with aclosing(climb.answer()) as events:
            async for event in events:
                yield event

    async def _in_thread(self, function: Callable[[A], T], argument: A) -> T:
        """Compute on a thread: the event loop and other streams must not wait for it."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, argument)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise BackendError(f"pocket reasoner: {type(error).__name__}") from error


class PocketClimb:
    """Implements `Climb`.

    Attributes:
        tokens: thinking tokens so far.
        ended: the thought has ended by itself.
    """

    def __init__(
        self, model: PocketModel, markers: tuple[int, int], request: GenerationRequest, in_thread: InThread
    ) -> None:
        _check(request)
        self.tokens = 0
        self.ended = False
        self._model = model
        self._request = request
        self._in_thread = in_thread
        # Without a cap half of the window is for thinking, so that there is always room for an answer.
        self._cap = WINDOW // 2 if request.budget.tokens is None else request.budget.tokens
        self._run = Run(model, request.sampling)
        self._prompt: list[int] = []
        self._begun: list[int] = []
        self._recalled: list[int] = []
        self._end, self._end_think = markers

    @property
    def greedy(self) -> bool:
        """Answers are drawn greedily, as they also are where no temperature is named."""
        return not self._request.sampling.temperature

    async def think(self, upto: int | None) -> AsyncGenerator[ReasoningDelta]:
        """Think on, to `upto` tokens in all and no further than the budget. Raises InvalidRequest, BackendError."""
        await self._begin()
        cap = self._cap if upto is None else min(upto, self._cap)
        while self.tokens < cap and not self.ended:
            # The end of the whole reply is banned within a thought: a very small model sometimes draws it there.
            below = self.tokens < self._request.min_thinking_tokens
            token = await self._in_thread(self._run.next_token, (self._end, self._end_think) if below else (self._end,))
            self.ended = token == self._end_think
            if not self.ended:
                self.tokens += 1
                self._run.feed([token])
                yield ReasoningDelta(self._model.tokenizer.decode([token]))

    async def probe(self, tokens: int, *, end: bool = True) -> Probe:
        """The greedy answer behind the thought as it is, of at most `tokens`. Raises InvalidRequest, BackendError."""
        await self._begin()
        said = None if self.ended or not end else await self._in_thread(self._run.branch().next_scores, (self._end,))
        run, answer = self._run.branch(temperature=0.0), AnswerText.of(self._request)
        room, text = self._room(tokens), ""
        async with aclosing(self._said(run, room, answer)) as events:
            async for event in events:
                text += event.text if isinstance(event, ContentDelta) else ""
        drawn, ends = run.drawn, None if said is None else float(said[self._end_think])
        return probed(text, drawn, drawn < room or answer.stopped, run.logprobs, ends, stop=answer.stop)

    def fork(self) -> "PocketClimb":
        """The same thought as it is now; neither changes the other."""
        fork = copy(self)
        fork._run = self._run.branch()
        return fork

    async def recall(self, reasoning: str) -> None:
        """Take up a thought that was had before, by its text. Raises InvalidRequest, BackendError."""
        await self._begin()
        self._recalled = await self._in_thread(self._model.text_ids, reasoning)
        self.tokens, self.ended = len(self._recalled), True
        self._run.feed(self._recalled)

    def upto(self, budget: ReasoningBudget) -> "PocketClimb":
        """A recalled thought as a smaller budget would have had it."""
        if budget.tokens is None or budget.tokens >= self.tokens:
            return self
        cut = copy(self)
        cut._request, cut._run = replace(self._request, budget=budget), Run(self._model, self._request.sampling)
        cut.tokens, cut.ended = budget.tokens, False
        cut._run.feed([*self._prompt, *self._recalled[: budget.tokens]])
        return cut

    def taken(self, probe: Probe) -> Completion:
        """The completion, where the probe just had is the answer."""
        return self._completion(FinishReason.FORCED, probe.tokens, probe.stop)

    async def answer(self) -> AsyncGenerator[GenerationEvent]:
        """The answer behind the thought as it is, and the completion. Raises InvalidRequest, BackendError."""
        await self._begin()
        run, answer = self._run.branch(), AnswerText.of(self._request)
        room = self._room(self._request.sampling.max_answer_tokens)
        async with aclosing(self._said(run, room, answer)) as events:
            async for event in events:
                yield event
        # The answer ends by a token of the model's, by a stop string or at its limit.
        reason = FinishReason.NATURAL if self.ended else FinishReason.FORCED
        truncated = run.drawn == room and not answer.stopped
        yield self._completion(FinishReason.TRUNCATED if truncated else reason, run.drawn, answer.stop)

    def _completion(self, finish: FinishReason, answered: int, stop: str | None) -> Completion:
        return Completion(
            finish,
            self._request.budget,
            Enforcement.NATIVE,
            CountSource.ENGINE,
            prompt_tokens=len(self._prompt),
            thinking_tokens=self.tokens,
            answer_tokens=answered,
            stop=stop,
        )

    async def _begin(self) -> None:
        if self._prompt:
            return
        prompt = await self._in_thread(self._model.prompt_ids, self._request.prompt.text)
        begun = self._request.prompt.begun
        self._begun = [] if begun is None else await self._in_thread(self._model.text_ids, begun.content)
        if len(prompt) + self._cap + len(self._begun) + 1 >= WINDOW:
            raise _too_long()
        self._prompt = prompt
        self._run.feed(prompt)

    async def _said(self, run: Run, room: int, answer: AnswerText) -> AsyncGenerator[GenerationEvent]:
        """The events of an answer of at most `room` tokens, behind its beginning."""
        run.feed([self._end_think, *self._begun])
        while run.drawn < room and not answer.stopped:
            token = await self._in_thread(run.next_token, (self._end_think,))
            if token == self._end:
                break
            run.drawn += 1
            run.feed([token])
            answer.take([self._logprob(run, token)] if self._request.sampling.logprobs else [])
            for event in (*answer.read([ContentDelta(self._decoded(token))]), *answer.logprobs()):
                yield event
        for event in (*answer.rest(), *answer.logprobs()):
            yield event

    def _logprob(self, run: Run, token: int) -> TokenLogprob:
        """A token just drawn, with the likeliest ones at its place."""
        top = np.argsort(-run.scores, kind="stable")[: self._request.sampling.top_logprobs]
        named = tuple((self._decoded(int(one)), max(float(run.scores[one]), LEAST_LOGPROB)) for one in top)
        return TokenLogprob(self._decoded(token), run.logprobs[-1], named)

    def _room(self, most: int) -> int:
        """Tokens that an answer may have: at most so many, and what is left of the window."""
        left = WINDOW - len(self._prompt) - self.tokens - len(self._begun) - 1
        return min(most, self._request.sampling.max_answer_tokens, left)

    def _decoded(self, token: int) -> str:
        text: str = self._model.tokenizer.decode([token])
        return text


def _check(request: GenerationRequest) -> None:
    """Refuse by name what the embedded model cannot do. Raises InvalidRequest."""
    check(request, TAKEN, "the embedded model")
    begun = request.prompt.begun
    if len(request.prompt.text) + len("" if begun is None else begun.content) > LONGEST_PROMPT:
        raise _too_long()


def _too_long() -> InvalidRequest:
    return InvalidRequest("messages", f"prompt and budget exceed the window of {WINDOW} tokens")
